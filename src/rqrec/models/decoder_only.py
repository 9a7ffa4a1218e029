"""The decoder-only model: a causal transformer over the flat sequence of codes, with every position a target.

Shapes: B batch, T items, L levels, S = T x L positions, P past and present ones, E width of a code, D width, M target
items, R targets that have a choice at a level, K beams, l codes of a prefix, V codes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rqrec.models.code_output import CodeOutput
from rqrec.models.item_input import ItemInput
from rqrec.models.kv_cache import KeysValues, beams_mask
from rqrec.models.layers import CodeEmbedding, Dropout, Transformer
from rqrec.models.retrieval_model import Batch, ModelConfig
from rqrec.models.side_information import SideInformation
from rqrec.models.trie_softmax import TrainingLoss
from rqrec.tokenizer.trie import Trie


@dataclass(frozen=True)
class DecoderOnlyConfig(ModelConfig):
    """Sizes of a decoder-only model."""

    tie_codes: bool = True
    """Whether codes share one embedding between input and output."""


class HistoryCache(NamedTuple):
    """The result of reading the histories, as input of decoding."""

    state_BD: Tensor
    """The state after the last code."""
    past: tuple[KeysValues, ...]
    """Each layer's keys and values."""
    past_mask_BS: Tensor
    """bool: which positions are real."""
    lengths_B: Tensor
    """int64: the number of items."""


class DecoderOnly(CodeOutput):
    """A causal transformer over [BEGIN, codes of item 1, codes of item 2, ...].

    The state at position s predicts flat code s, which is level s mod L of item s div L. The position embedding of
    an input is that of the item and level it predicts. A history of T items takes T x L + 1 positions. The user's
    embedding, if any, is added to BEGIN.
    """

    def __init__(self, config: DecoderOnlyConfig) -> None:
        super().__init__()
        self.config = config
        self.level_sizes, self.max_items = config.level_sizes, config.max_items
        embed, width = config.decoder_embed_dim, config.attn_embed_dim
        self.codes = CodeEmbedding(self.level_sizes, embed)
        self.widen = nn.Linear(embed, width, bias=False) if embed != width else nn.Identity()
        self.begin = nn.Parameter(torch.zeros(embed))
        self._build_output(config, width)
        # One more than max_items: the item after a full history.
        self.item_position = nn.Embedding(config.max_items + 1, width)
        self.level_position = nn.Embedding(len(self.level_sizes), width)
        self.dropout = Dropout(config.attn_dropout)
        self.transformer = Transformer(width, config.attn_heads, config.attn_layers, config.attn_dropout)
        for table in (self.item_position, self.level_position):
            nn.init.normal_(table.weight, std=0.02)
        self.side = SideInformation(config.user_buckets, config.time_gaps, embed)
        self.item_input = ItemInput(config.n_items, config.content_dim, config.item_embed_dim, embed)

    def _embedded(self, codes: Tensor) -> Tensor:
        return self.codes(codes) * self.config.input_scale

    def _add_positions(self, vectors_BSE: Tensor, items: Tensor, levels: Tensor) -> Tensor:
        """Transformer inputs [B, S, D]; `items` and `levels` are the positions that each input predicts."""
        x_BSD = self.widen(vectors_BSE) + self.item_position(items) + self.level_position(levels)
        return self.dropout(x_BSD)

    def _sequence(self, batch: Batch, positions: int) -> Tensor:
        """The first `positions` transformer inputs [B, positions, D] of [BEGIN, codes]."""
        vectors_BTLE = self.item_input.added(self._embedded(batch.codes_BTL), batch.items_BT)
        vectors_BTLE = self.side.with_gaps(vectors_BTLE, batch.times_BT)
        begin_B1E = self.side.with_user(self.begin.expand(len(vectors_BTLE), 1, -1), batch.users_B)
        vectors_BSE = torch.cat([begin_B1E, vectors_BTLE.flatten(1, 2)], dim=1)[:, :positions]
        steps_S = torch.arange(positions, device=vectors_BSE.device)
        n_levels = len(self.level_sizes)
        return self._add_positions(vectors_BSE, steps_S // n_levels, steps_S % n_levels)

    def forward(self, batch: Batch, trie: Trie) -> TrainingLoss:
        """Mean cross-entropy over the codes of all real items, each given all codes before it."""
        n_items, n_levels = batch.codes_BTL.shape[1:]
        states_BSD, _ = self.transformer.causal(self._sequence(batch, n_items * n_levels))
        real_BT = torch.arange(n_items, device=batch.lengths_B.device) < batch.lengths_B[:, None]
        states_MLD = states_BSD.unflatten(1, (n_items, n_levels))[real_BT]
        choices = self.choices(batch, trie)
        states_LRD = [states_MLD[choice.rows_R, level] for level, choice in enumerate(choices)]
        return self._loss(states_LRD, choices, len(states_MLD))

    def encode(self, batch: Batch) -> HistoryCache:
        """Read each history once. An empty history is BEGIN alone, which predicts a first item."""
        n_items, n_levels = batch.codes_BTL.shape[1:]
        positions = n_items * n_levels + 1
        last_B = batch.lengths_B * n_levels
        state_BD, past = self.transformer.last_state(self._sequence(batch, positions), last_B)
        past_mask_BS = torch.arange(positions, device=last_B.device) <= last_B[:, None]
        return HistoryCache(state_BD, past, past_mask_BS, batch.lengths_B)

    def state(self, context: HistoryCache) -> Tensor:
        """The state [B, D] of each history, from which the first code of the next item is predicted."""
        return context.state_BD

    def next_logits(self, context: HistoryCache, prefix_BKl: Tensor) -> Tensor:
        """Logits [B, K, V] of the level after the prefix (see RetrievalModel)."""
        n_beams, level = prefix_BKl.shape[1:]
        if level == 0:
            return self._logits(context.state_BD, 0)[:, None].expand(-1, n_beams, -1)
        levels_S = torch.arange(1, level + 1, device=prefix_BKl.device).repeat(n_beams)
        items_BS = context.lengths_B[:, None].expand(-1, n_beams * level)
        x_BSD = self._add_positions(self._embedded(prefix_BKl).flatten(1, 2), items_BS, levels_S)
        mask_BSP = beams_mask(context.past_mask_BS, n_beams, level)
        states_BSD = self.transformer.decode_step(x_BSD, context.past, mask_BSP)
        last_BKD = states_BSD.unflatten(1, (n_beams, level))[:, :, -1]
        return self._logits(last_BKD, level)
