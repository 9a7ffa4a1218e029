"""The parts that the retrieval models share.

Shapes: B batch, S positions, P other positions, D width, H heads, d width of a head, L levels, V codes of a
level.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rqrec.models.kv_cache import KeysValues, split_heads


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


class Attention(nn.Module):
    """Multi-head self-attention (arXiv 1706.03762, section 3.2.2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project_in = nn.Linear(width, 3 * width, bias=False)
        self.project_out = nn.Linear(width, width, bias=False)

    def _split(self, x_BSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (split_heads(part, self.heads) for part in self.project_in(x_BSD).chunk(3, dim=-1))
        return q, k, v

    def causal(self, x_BSD: Tensor) -> tuple[Tensor, KeysValues]:
        """Each position attends to itself and those before it."""
        q, k, v = self._split(x_BSD)
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.project_out(out.transpose(1, 2).flatten(2)), KeysValues(k, v)

    def last_state(self, x_BSD: Tensor, places_B: Tensor) -> tuple[Tensor, KeysValues]:
        """What `causal` gives at one place of each sequence [B, D], for the cost of one query."""
        width = x_BSD.shape[2]
        weight_q, weight_kv = self.project_in.weight.split([width, 2 * width])
        rows_B = torch.arange(len(places_B), device=places_B.device)
        q = functional.linear(x_BSD[rows_B, places_B][:, None], weight_q)
        k, v = functional.linear(x_BSD, weight_kv).chunk(2, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        mask_BS = torch.arange(x_BSD.shape[1], device=places_B.device) <= places_B[:, None]
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask_BS[:, None, None])
        return self.project_out(out.flatten(1)), KeysValues(k, v)

    def decode_step(self, x_BSD: Tensor, past: KeysValues, mask_BSP: Tensor) -> Tensor:
        """Positions that go on after a past: `mask_BSP` says what each may see of past and present.

        The K beams of a user stand side by side in S, so that all of them read one copy of the past.
        """
        q, k, v = self._split(x_BSD)
        out = functional.scaled_dot_product_attention(q, *past.extended(k, v), attn_mask=mask_BSP[:, None])
        return self.project_out(out.transpose(1, 2).flatten(2))

    def bidirectional(self, x_BSD: Tensor, bias_BHSS: Tensor) -> Tensor:
        """Every position attends to all, with a bias on the logits: minus infinity hides a position."""
        q, k, v = self._split(x_BSD)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias_BHSS)
        return self.project_out(out.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head attention of one sequence to another, the memory (arXiv 1706.03762, section 3.2.3)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project_out = nn.Linear(width, width, bias=False)

    def memory(self, memory_BSD: Tensor) -> KeysValues:
        """The memory's keys and values, worked out once for all that attends to it."""
        parts = self.keys_values(memory_BSD).chunk(2, dim=-1)
        return KeysValues(*(split_heads(part, self.heads) for part in parts))

    def forward(self, x_BPD: Tensor, memory: KeysValues, mask_BS: Tensor) -> Tensor:
        """P positions attend to those of the memory for which the mask is True."""
        q = split_heads(self.query(x_BPD), self.heads)
        out = functional.scaled_dot_product_attention(q, *memory, attn_mask=mask_BS[:, None, None])
        return self.project_out(out.transpose(1, 2).flatten(2))


class RelativeBias(nn.Module):
    """A learned bias on attention logits by how far apart two positions are (T5, arXiv 1910.10683, 2.1).

    Half of the buckets are for positions after the query. Of each half, half again hold one distance each,
    the rest widen logarithmically up to `MAX_DISTANCE`, beyond which all share the last.
    """

    BUCKETS = 32
    MAX_DISTANCE = 128

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.table = nn.Embedding(self.BUCKETS, heads)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, positions: int) -> Tensor:
        """Biases [H, S, S] of a sequence: row the query's position, column the key's."""
        places_S = torch.arange(positions, device=self.table.weight.device)
        buckets_SS = self.bucket(places_S[None] - places_S[:, None])
        return self.table(buckets_SS).permute(2, 0, 1)

    @classmethod
    def bucket(cls, offset: Tensor) -> Tensor:
        """Buckets of offsets (key's position minus query's), int64 of the same shape."""
        half, exact = cls.BUCKETS // 2, cls.BUCKETS // 4
        distance = offset.abs()
        share = (distance.clamp(min=1) / exact).log() / math.log(cls.MAX_DISTANCE / exact)
        wide = (exact + share * (half - exact)).long().clamp(max=half - 1)
        return torch.where(distance < exact, distance, wide) + half * (offset > 0)


class Dropout(nn.Module):
    """Dropout (arXiv 1207.0580) that costs little on a CPU: 16 random bits an element, four elements a draw.

    The probability is a multiple of 2^-16, the nearest one.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.dropped = round(probability * 65536)  # of the 65536 values that 16 bits have

    def forward(self, x: Tensor) -> Tensor:
        """Zero some elements and scale the others up, in training; else `x` itself."""
        if not self.training or not self.dropped:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():  # there it is fused with its neighbours
            return functional.dropout(x, self.dropped / 65536)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        drawn = bits.view(torch.int16)[: x.numel()].view(x.shape)
        kept = (drawn >= self.dropped - 32768).to(x.dtype)
        return x * kept.mul_(65536 / (65536 - self.dropped))


def feed_forward(width: int, hidden: int) -> nn.Sequential:
    """Two linear layers with a GELU between them."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class Block(nn.Module):
    """A pre-norm transformer block: attention, then a feed-forward layer, each added to its input."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = feed_forward(width, hidden)
        self.dropout = Dropout(dropout)

    def _finish(self, x_BSD: Tensor, attended_BSD: Tensor) -> Tensor:
        x_BSD = x_BSD + self.dropout(attended_BSD)
        return x_BSD + self.dropout(self.feed_forward(self.feed_forward_norm(x_BSD)))

    def causal(self, x_BSD: Tensor) -> tuple[Tensor, KeysValues]:
        """A causal pass over whole sequences."""
        attended, past = self.attention.causal(self.attention_norm(x_BSD))
        return self._finish(x_BSD, attended), past

    def bidirectional(self, x_BSD: Tensor, bias_BHSS: Tensor) -> Tensor:
        """A pass over whole sequences in which every position sees all (see Attention.bidirectional)."""
        return self._finish(x_BSD, self.attention.bidirectional(self.attention_norm(x_BSD), bias_BHSS))

    def last_state(self, x_BSD: Tensor, places_B: Tensor) -> tuple[Tensor, KeysValues]:
        """A causal pass of which only one place of each sequence is wanted, [B, D]."""
        rows_B = torch.arange(len(places_B), device=places_B.device)
        attended_BD, past = self.attention.last_state(self.attention_norm(x_BSD), places_B)
        return self._finish(x_BSD[rows_B, places_B], attended_BD), past

    def decode_step(self, x_BSD: Tensor, past: KeysValues, mask_BSP: Tensor) -> Tensor:
        """A pass over positions that go on after `past`."""
        return self._finish(x_BSD, self.attention.decode_step(self.attention_norm(x_BSD), past, mask_BSP))


def initialize(stack: nn.Module, layers: int) -> None:
    """Start the matrices of a stack of blocks: normal with deviation 0.02.

    Those that write into the residual stream are scaled down by depth (as in GPT-2), since without it the
    stream's variance grows with the number of layers.
    """
    for name, parameter in stack.named_parameters():
        if parameter.dim() == 2:
            residual = name.endswith(("project_out.weight", "2.weight"))  # 2: a feed-forward's second
            nn.init.normal_(parameter, std=0.02 / (2 * layers) ** 0.5 if residual else 0.02)


class Transformer(nn.Module):
    """A stack of blocks and a final norm."""

    def __init__(self, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, 4 * width, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        initialize(self, layers)

    def causal(self, x_BSD: Tensor) -> tuple[Tensor, tuple[KeysValues, ...]]:
        """Whole sequences; with the states come each block's keys and values."""
        past = []
        for block in cast(list[Block], self.blocks):
            x_BSD, keys_values = block.causal(x_BSD)
            past.append(keys_values)
        return self.norm(x_BSD), tuple(past)

    def last_state(self, x_BSD: Tensor, places_B: Tensor) -> tuple[Tensor, tuple[KeysValues, ...]]:
        """The state [B, D] at one place of each sequence, without dropout; the last block works for it alone.

        With it come each block's keys and values, of which those after the place mean nothing.
        """
        *blocks, last = cast(list[Block], self.blocks)
        past = []
        for block in blocks:
            x_BSD, keys_values = block.causal(x_BSD)
            past.append(keys_values)
        state_BD, keys_values = last.last_state(x_BSD, places_B)
        return self.norm(state_BD), (*past, keys_values)

    def decode_step(self, x_BSD: Tensor, past: tuple[KeysValues, ...], mask_BSP: Tensor) -> Tensor:
        """Positions that go on after `past` (see Attention.decode_step)."""
        for block, keys_values in zip(cast(list[Block], self.blocks), past, strict=True):
            x_BSD = block.decode_step(x_BSD, keys_values, mask_BSP)
        return self.norm(x_BSD)
