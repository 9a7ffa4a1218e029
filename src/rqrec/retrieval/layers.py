"""The parts that the retrieval models share.

Shapes: B batch, S positions, D width, H heads, d width of a head, L levels, V codes of a level.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class CodeEmbedding(nn.Module):
    """One table for the codes of all levels, in which no two levels share a row.

    Level l's code c is row `offset[l] + c`; code 5 of level 2 is not code 5 of level 1.
    """

    offsets: Tensor

    def __init__(self, level_sizes: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.level_sizes = tuple(level_sizes)
        starts = [sum(level_sizes[:level]) for level in range(len(level_sizes))]
        self.register_buffer("offsets", torch.tensor(starts), persistent=False)
        self.table = nn.Embedding(sum(level_sizes), width)
        nn.init.normal_(self.table.weight, std=width**-0.5)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes int64 [..., l] of levels 0 to l - 1 to vectors [..., l, D]."""
        return self.table(codes + self.offsets[: codes.shape[-1]])

    def rows(self, level: int) -> Tensor:
        """The vectors [V, D] of one level's codes."""
        start = sum(self.level_sizes[:level])
        return self.table.weight[start : start + self.level_sizes[level]]


class KeysValues(NamedTuple):
    """Keys and values [B, H, S, d] of one layer, kept so that a history is read once."""

    keys: Tensor
    values: Tensor


class Attention(nn.Module):
    """Multi-head self-attention (arXiv 1706.03762, section 3.2.2)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.project_in = nn.Linear(width, 3 * width, bias=False)
        self.project_out = nn.Linear(width, width, bias=False)

    def _split(self, x_BSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.project_in(x_BSD).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        return q, k, v

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [..., H, d] of any inputs [..., D], for `one`."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.project_in(x).chunk(3, dim=-1))
        return q, k, v

    def one(self, query: Tensor, seen: Sequence[KeysValues]) -> Tensor:
        """One position's query [..., H, d] over a few positions, each with keys and values of that shape.

        For short sequences in great number (a beam's codes), where calling a kernel for each would cost
        more than the sums.
        """
        scores = torch.stack([(query * keys).sum(-1) for keys, _ in seen]) / query.shape[-1] ** 0.5
        weights = scores.softmax(0).unsqueeze(-1)
        out = weights[0] * seen[0].values
        for weight, (_, values) in zip(weights[1:], seen[1:], strict=True):
            out = torch.addcmul(out, weight, values)
        return self.project_out(out.flatten(-2))

    def causal(self, x_BSD: Tensor) -> tuple[Tensor, KeysValues]:
        """Each position attends to itself and those before it."""
        q, k, v = self._split(x_BSD)
        dropout = self.dropout if self.training else 0.0
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
        return self.project_out(out.transpose(1, 2).flatten(2)), KeysValues(k, v)

    def continued(self, x_BSD: Tensor, past: KeysValues, mask_BSP: Tensor) -> Tensor:
        """Positions that go on after a past: `mask_BSP` says what each may see of past and present.

        The K beams of a user stand side by side in S, so that all of them read one copy of the past.
        """
        q, k, v = self._split(x_BSD)
        keys = torch.cat([past.keys, k], dim=2)
        values = torch.cat([past.values, v], dim=2)
        out = functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask_BSP[:, None])
        return self.project_out(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm transformer block: attention, then a feed-forward layer, each added to its input."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, feed_forward), nn.GELU(), nn.Dropout(dropout), nn.Linear(feed_forward, width)
        )
        self.dropout = nn.Dropout(dropout)

    def _finish(self, x_BSD: Tensor, attended_BSD: Tensor) -> Tensor:
        x_BSD = x_BSD + self.dropout(attended_BSD)
        return x_BSD + self.dropout(self.feed_forward(self.feed_forward_norm(x_BSD)))

    def causal(self, x_BSD: Tensor) -> tuple[Tensor, KeysValues]:
        """A causal pass over whole sequences."""
        attended, past = self.attention.causal(self.attention_norm(x_BSD))
        return self._finish(x_BSD, attended), past

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of inputs [..., D] (see Attention.project)."""
        return self.attention.project(self.attention_norm(x))

    def one(self, x: Tensor, query: Tensor, seen: Sequence[KeysValues]) -> Tensor:
        """One position [..., D] that sees a few others, itself included (see Attention.one)."""
        return self._finish(x, self.attention.one(query, seen))

    def continued(self, x_BSD: Tensor, past: KeysValues, mask_BSP: Tensor) -> Tensor:
        """A pass over positions that go on after `past`."""
        return self._finish(x_BSD, self.attention.continued(self.attention_norm(x_BSD), past, mask_BSP))


class Transformer(nn.Module):
    """A stack of blocks and a final norm.

    Weights start normal with deviation 0.02, those that write into the residual stream scaled down by depth
    (as in GPT-2), since without it the stream's variance grows with the number of layers.
    """

    def __init__(self, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, 4 * width, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("project_out.weight", "feed_forward.3.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * layers) ** 0.5 if residual else 0.02)

    @property
    def first_block(self) -> Block:
        """The first block, whose keys and values follow from the inputs alone."""
        return cast(Block, self.blocks[0])

    def causal(self, x_BSD: Tensor) -> tuple[Tensor, tuple[KeysValues, ...]]:
        """Whole sequences; with the states come each block's keys and values."""
        past = []
        for block in cast(list[Block], self.blocks):
            x_BSD, keys_values = block.causal(x_BSD)
            past.append(keys_values)
        return self.norm(x_BSD), tuple(past)

    def continued(self, x_BSD: Tensor, past: tuple[KeysValues, ...], mask_BSP: Tensor) -> Tensor:
        """Positions that go on after `past` (see Attention.continued)."""
        for block, keys_values in zip(cast(list[Block], self.blocks), past, strict=True):
            x_BSD = block.continued(x_BSD, keys_values, mask_BSP)
        return self.norm(x_BSD)
