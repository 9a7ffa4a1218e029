"""Layers shared by the models.

Shapes: B batch, S positions, P past and present positions, D width, H heads, d width of a head, V codes of a level.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rqrec.models.feed_forward import FeedForward
from rqrec.models.kv_cache import KeysValues, split_heads


class CodeEmbedding(nn.Module):
    """One embedding table for the codes of all levels: code c of level l is row `offsets[l] + c`."""

    offsets: Tensor

    def __init__(self, level_sizes: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.level_sizes = tuple(level_sizes)
        starts = [sum(level_sizes[:level]) for level in range(len(level_sizes))]
        # On the CPU even where shapes alone are built ("meta"): no file has its values.
        self.register_buffer("offsets", torch.tensor(starts, device="cpu"), persistent=False)
        self.table = nn.Embedding(sum(level_sizes), width)
        nn.init.normal_(self.table.weight, std=width**-0.5)

    def forward(self, codes: Tensor) -> Tensor:
        """Embeddings [..., l, D] of codes int64 [..., l] of levels 0 to l - 1."""
        return self.table(codes + self.offsets[: codes.shape[-1]])

    def rows(self, level: int) -> Tensor:
        """The embeddings [V, D] of one level's codes."""
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
        """Each position attends to itself and to those before it; returns outputs [B, S, D] and the KV cache."""
        q, k, v = self._split(x_BSD)
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.project_out(out.transpose(1, 2).flatten(2)), KeysValues(k, v)

    def last_state(self, x_BSD: Tensor, positions_B: Tensor) -> tuple[Tensor, KeysValues]:
        """The output of `causal` at one position of each sequence, [B, D], from one query, and the KV cache."""
        width = x_BSD.shape[2]
        weight_q, weight_kv = self.project_in.weight.split([width, 2 * width])
        rows_B = torch.arange(len(positions_B), device=positions_B.device)
        q = functional.linear(x_BSD[rows_B, positions_B][:, None], weight_q)
        k, v = functional.linear(x_BSD, weight_kv).chunk(2, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        mask_BS = torch.arange(x_BSD.shape[1], device=positions_B.device) <= positions_B[:, None]
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask_BS[:, None, None])
        return self.project_out(out.flatten(1)), KeysValues(k, v)

    def decode_step(self, x_BSD: Tensor, past: KeysValues, mask_BSP: Tensor) -> Tensor:
        """Outputs [B, S, D] of new positions; `mask_BSP` (bool) is True where they may attend to a position.

        The K beams of a user are concatenated in S, so that they share one copy of the past.
        """
        q, k, v = self._split(x_BSD)
        out = functional.scaled_dot_product_attention(q, *past.extended(k, v), attn_mask=mask_BSP[:, None])
        return self.project_out(out.transpose(1, 2).flatten(2))

    def bidirectional(self, x_BSD: Tensor, bias_BHSS: Tensor) -> Tensor:
        """Every position attends to all, with a bias added to the logits; minus infinity masks a position."""
        q, k, v = self._split(x_BSD)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias_BHSS)
        return self.project_out(out.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head attention to the encoder's output, the memory (arXiv 1706.03762, section 3.2.3)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project_out = nn.Linear(width, width, bias=False)

    def memory(self, memory_BSD: Tensor) -> KeysValues:
        """The keys and values of the memory, computed once for all queries."""
        parts = self.keys_values(memory_BSD).chunk(2, dim=-1)
        return KeysValues(*(split_heads(part, self.heads) for part in parts))

    def forward(self, x_BPD: Tensor, memory: KeysValues, mask_BS: Tensor) -> Tensor:
        """P query positions attend to the positions of the memory where the mask is True."""
        q = split_heads(self.query(x_BPD), self.heads)
        out = functional.scaled_dot_product_attention(q, *memory, attn_mask=mask_BS[:, None, None])
        return self.project_out(out.transpose(1, 2).flatten(2))


class RelativeBias(nn.Module):
    """A learned bias on attention logits by relative position (T5, arXiv 1910.10683, section 2.1).

    Half of the buckets are for keys after the query. In each half, the first half of the buckets hold one distance
    each; the others grow logarithmically up to `MAX_DISTANCE`, and larger distances share the last one.
    """

    BUCKETS = 32
    MAX_DISTANCE = 128

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.table = nn.Embedding(self.BUCKETS, heads)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, positions: int) -> Tensor:
        """Biases [H, S, S] of a sequence: query positions in rows, key positions in columns."""
        positions_S = torch.arange(positions, device=self.table.weight.device)
        buckets_SS = self.bucket(positions_S[None] - positions_S[:, None])
        return self.table(buckets_SS).permute(2, 0, 1)

    @classmethod
    def bucket(cls, offset: Tensor) -> Tensor:
        """Buckets int64 of offsets (key position minus query position), of the same shape."""
        half, exact = cls.BUCKETS // 2, cls.BUCKETS // 4
        distance = offset.abs()
        fraction = (distance.clamp(min=1) / exact).log() / math.log(cls.MAX_DISTANCE / exact)
        wide = (exact + fraction * (half - exact)).long().clamp(max=half - 1)
        return torch.where(distance < exact, distance, wide) + half * (offset > 0)


class Dropout(nn.Module):
    """Dropout (arXiv 1207.0580) that is fast on a CPU: 16 random bits per element, four elements per draw.

    The probability is rounded to a multiple of 2^-16.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.dropped = round(probability * 65536)  # of the 65536 values that 16 bits have

    def forward(self, x: Tensor) -> Tensor:
        """In training, zero some elements and scale up the others; in evaluation, `x` itself."""
        if not self.training or not self.dropped:
            return x
        # torch's own dropout is fast on a GPU, and when compiled it is fused with other operations.
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return functional.dropout(x, self.dropped / 65536)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        drawn = bits.view(torch.int16)[: x.numel()].view(x.shape)
        kept = drawn >= self.dropped - 32768  # what the backward pass stores: one byte per element
        return (x * kept).mul_(65536 / (65536 - self.dropped))


class Block(nn.Module):
    """A pre-norm transformer block: attention, then a feed-forward layer, each with a residual connection."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden)
        self.dropout = Dropout(dropout)

    def _finish(self, x_BSD: Tensor, attended_BSD: Tensor) -> Tensor:
        x_BSD = x_BSD + self.dropout(attended_BSD)
        return x_BSD + self.dropout(self.feed_forward(self.feed_forward_norm(x_BSD)))

    def causal(self, x_BSD: Tensor) -> tuple[Tensor, KeysValues]:
        """A causal pass over full sequences; also returns the KV cache."""
        attended, past = self.attention.causal(self.attention_norm(x_BSD))
        return self._finish(x_BSD, attended), past

    def bidirectional(self, x_BSD: Tensor, bias_BHSS: Tensor) -> Tensor:
        """A bidirectional pass over full sequences (see Attention.bidirectional)."""
        return self._finish(x_BSD, self.attention.bidirectional(self.attention_norm(x_BSD), bias_BHSS))

    def last_state(self, x_BSD: Tensor, positions_B: Tensor) -> tuple[Tensor, KeysValues]:
        """The output of a causal pass at one position of each sequence, [B, D], and the KV cache."""
        rows_B = torch.arange(len(positions_B), device=positions_B.device)
        attended_BD, past = self.attention.last_state(self.attention_norm(x_BSD), positions_B)
        return self._finish(x_BSD[rows_B, positions_B], attended_BD), past

    def decode_step(self, x_BSD: Tensor, past: KeysValues, mask_BSP: Tensor) -> Tensor:
        """A pass over new positions after `past` (see Attention.decode_step)."""
        return self._finish(x_BSD, self.attention.decode_step(self.attention_norm(x_BSD), past, mask_BSP))


def initialize(stack: nn.Module, layers: int) -> None:
    """Initialise the matrices of a stack of blocks from a normal distribution with standard deviation 0.02.

    Matrices that write to the residual stream are scaled down by depth, as in GPT-2; otherwise the variance of the
    stream would grow with the number of layers.
    """
    for name, parameter in stack.named_parameters():
        if parameter.dim() == 2:
            # "2.weight" is the second layer of a feed-forward.
            residual = name.endswith(("project_out.weight", "2.weight"))
            nn.init.normal_(parameter, std=0.02 / (2 * layers) ** 0.5 if residual else 0.02)


class Transformer(nn.Module):
    """A stack of blocks and a final layer norm."""

    def __init__(self, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, 4 * width, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        initialize(self, layers)

    def causal(self, x_BSD: Tensor) -> tuple[Tensor, tuple[KeysValues, ...]]:
        """A causal pass over full sequences: states [B, S, D], and each block's keys and values."""
        past = []
        for block in cast(list[Block], self.blocks):
            x_BSD, keys_values = block.causal(x_BSD)
            past.append(keys_values)
        return self.norm(x_BSD), tuple(past)

    def last_state(self, x_BSD: Tensor, positions_B: Tensor) -> tuple[Tensor, tuple[KeysValues, ...]]:
        """The state [B, D] at one position of each sequence, and each block's keys and values.

        The last block computes only this position. Keys and values after it are meaningless.
        """
        *blocks, last = cast(list[Block], self.blocks)
        past = []
        for block in blocks:
            x_BSD, keys_values = block.causal(x_BSD)
            past.append(keys_values)
        state_BD, keys_values = last.last_state(x_BSD, positions_B)
        return self.norm(state_BD), (*past, keys_values)

    def decode_step(self, x_BSD: Tensor, past: tuple[KeysValues, ...], mask_BSP: Tensor) -> Tensor:
        """States [B, S, D] of new positions after `past` (see Attention.decode_step)."""
        for block, keys_values in zip(cast(list[Block], self.blocks), past, strict=True):
            x_BSD = block.decode_step(x_BSD, keys_values, mask_BSP)
        return self.norm(x_BSD)
