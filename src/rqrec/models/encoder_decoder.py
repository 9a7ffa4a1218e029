"""The encoder-decoder of TIGER (arXiv 2305.05065, section 3.2): encode the history, decode the next item.

Shapes: B batch, T items, L levels, S = T x L + 1 positions of a history, D width, H heads, R targets that have a
choice at a level, K beams, l codes of a prefix, V codes of a level.
"""

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rqrec.core.values import Depth
from rqrec.models.code_output import CodeOutput
from rqrec.models.item_input import ItemInput
from rqrec.models.kv_cache import KeysValues
from rqrec.models.layers import (
    Block,
    CodeEmbedding,
    CrossAttention,
    Dropout,
    RelativeBias,
    initialize,
)
from rqrec.models.retrieval_model import Batch, ModelConfig
from rqrec.models.side_information import SideInformation
from rqrec.models.trie_softmax import TrainingLoss
from rqrec.tokenizer.trie import Trie


@dataclass(frozen=True)
class EncoderDecoderConfig(ModelConfig):
    """Sizes of an encoder-decoder."""

    attn_layers: Depth = 4
    """Number of blocks of the encoder, and of the decoder."""


class EncodedHistory(NamedTuple):
    """The encoder's output for the histories."""

    memory: tuple[KeysValues, ...]
    """The keys and values that each decoder block attends to."""
    mask_BS: Tensor
    """bool: which positions are real."""


class DecoderBlock(Block):
    """A pre-norm decoder block: causal self-attention, cross-attention to the memory, then feed-forward."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__(width, heads, hidden, dropout)
        self.cross_norm = nn.LayerNorm(width)
        self.cross = CrossAttention(width, heads)

    def decode(self, x_BKlD: Tensor, memory: KeysValues, mask_BS: Tensor) -> Tensor:
        """A causal pass over K sequences for each of B memories, which share one copy of the memory."""
        attended, _ = self.attention.causal(self.attention_norm(x_BKlD).flatten(0, 1))
        x_BKlD = x_BKlD + self.dropout(attended.view_as(x_BKlD))
        crossed = self.cross(self.cross_norm(x_BKlD).flatten(1, 2), memory, mask_BS)
        return self._finish(x_BKlD, crossed.view_as(x_BKlD))


class EncoderDecoder(CodeOutput):
    """A bidirectional encoder over [BEGIN, codes of item 1, ...] and a causal decoder over one item's codes.

    Positions are relative in the encoder (T5's bias) and levels in the decoder. BEGIN replaces TIGER's user token so
    that an empty history has something to attend to; with `user_buckets` the user's embedding is added to it.

    The target is the last item of each sequence, and the items before it are the history. Training cuts each sequence
    after a random item at every step (see `Windows`), so that over the epochs every position becomes a target (in the
    causal models every position is a target at every step).
    """

    learns_last_item_only = True

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.level_sizes, self.max_items = config.level_sizes, config.max_items
        embed, width, heads = config.decoder_embed_dim, config.attn_embed_dim, config.attn_heads
        sizes = (width, heads, 4 * width, config.attn_dropout)
        self.codes = CodeEmbedding(self.level_sizes, embed)
        self.widen = nn.Linear(embed, width, bias=False) if embed != width else nn.Identity()
        self.begin = nn.Parameter(torch.zeros(width))
        self.dropout = Dropout(config.attn_dropout)
        self.relative_bias = RelativeBias(heads)  # one for all blocks, as in T5
        self.encoder = nn.ModuleList(Block(*sizes) for _ in range(config.attn_layers))
        self.encoder_norm = nn.LayerNorm(width)
        self.level_position = nn.Embedding(len(self.level_sizes), width)
        self.decoder = nn.ModuleList(DecoderBlock(*sizes) for _ in range(config.attn_layers))
        self.decoder_norm = nn.LayerNorm(width)
        self._build_output(config, width)
        initialize(self.encoder, config.attn_layers)
        initialize(self.decoder, config.attn_layers)
        nn.init.normal_(self.begin, std=0.02)
        nn.init.normal_(self.level_position.weight, std=0.02)
        self.side = SideInformation(config.user_buckets, config.time_gaps, width)
        self.item_input = ItemInput(config.n_items, config.content_dim, config.item_embed_dim, width)

    def _embedded(self, codes: Tensor) -> Tensor:
        return self.widen(self.codes(codes) * self.config.input_scale)

    def encode(self, batch: Batch) -> EncodedHistory:
        """Read each history once. An empty history is BEGIN alone, which predicts a first item."""
        vectors_BTLD = self.item_input.added(self._embedded(batch.codes_BTL), batch.items_BT)
        vectors_BTLD = self.side.with_gaps(vectors_BTLD, batch.times_BT)
        begin_B1D = self.side.with_user(self.begin.expand(len(vectors_BTLD), 1, -1), batch.users_B)
        x_BSD = self.dropout(torch.cat([begin_B1D, vectors_BTLD.flatten(1, 2)], dim=1))
        positions = x_BSD.shape[1]
        last_B1 = (batch.lengths_B * len(self.level_sizes))[:, None]
        mask_BS = torch.arange(positions, device=last_B1.device) <= last_B1
        bias_BHSS = self.relative_bias(positions).masked_fill(~mask_BS[:, None, None], -torch.inf)
        for block in cast(list[Block], self.encoder):
            x_BSD = block.bidirectional(x_BSD, bias_BHSS)
        memory_BSD = self.encoder_norm(x_BSD)
        blocks = cast(list[DecoderBlock], self.decoder)
        return EncodedHistory(tuple(block.cross.memory(memory_BSD) for block in blocks), mask_BS)

    def _decode(self, context: EncodedHistory, prefix_BKl: Tensor) -> Tensor:
        """States [B, K, l + 1, D] that predict codes 0 to l of each prefix."""
        level = prefix_BKl.shape[2]
        # The input at position l is code l - 1; at position 0 it is only the position embedding.
        codes_BKlD = functional.pad(self._embedded(prefix_BKl), (0, 0, 1, 0))
        x_BKlD = self.dropout(codes_BKlD + self.level_position.weight[: level + 1])
        for block, memory in zip(cast(list[DecoderBlock], self.decoder), context.memory, strict=True):
            x_BKlD = block.decode(x_BKlD, memory, context.mask_BS)
        return self.decoder_norm(x_BKlD)

    def forward(self, batch: Batch, trie: Trie) -> TrainingLoss:
        """Mean cross-entropy over the codes of the last item of each sequence, given the items before it."""
        targets_B = batch.lengths_B - 1
        context = self.encode(batch._replace(codes_BTL=batch.codes_BTL[:, :-1], lengths_B=targets_B))
        rows_B = torch.arange(len(targets_B), device=targets_B.device)
        codes_BL = batch.codes_BTL[rows_B, targets_B]
        states_BLD = self._decode(context, codes_BL[:, None, :-1])[:, 0]
        choices = self.choices(batch, trie)
        states_LRD = [states_BLD[choice.rows_R, level] for level, choice in enumerate(choices)]
        return self._loss(states_LRD, choices, len(codes_BL))

    def state(self, context: EncodedHistory) -> Tensor:
        """The state [B, D] of each history, from which the first code of the next item is predicted."""
        return self._decode(context, context.mask_BS.new_zeros(len(context.mask_BS), 1, 0).long())[:, 0, 0]

    def next_logits(self, context: EncodedHistory, prefix_BKl: Tensor) -> Tensor:
        """Logits [B, K, V] of the level after the prefix (see RetrievalModel)."""
        n_beams, level = prefix_BKl.shape[1:]
        if level == 0:
            prefix_BKl = prefix_BKl[:, :1]
        states_BKD = self._decode(context, prefix_BKl)[:, :, -1]
        return self._logits(states_BKD, level).expand(-1, n_beams, -1)
