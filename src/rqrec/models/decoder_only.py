"""The decoder-only model: a history is one flat sequence of codes, read causally, every position a target.

Shapes: B batch, T items, L levels, S = T x L positions, D width, K beams, l codes of a prefix, V codes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rqrec.models.code_output import CodeOutput
from rqrec.models.interface import Batch, ModelConfig, TrainingLoss
from rqrec.models.kv_cache import KeysValues, beams_mask
from rqrec.models.layers import CodeEmbedding, Dropout, Transformer
from rqrec.models.side_information import SideInformation


@dataclass(frozen=True)
class DecoderOnlyConfig(ModelConfig):
    """Sizes of a decoder-only model."""

    tie_codes: bool = True


class Context(NamedTuple):
    """What is kept of a history: the state after its last code, and each layer's keys and values."""

    state_BD: Tensor
    past: tuple[KeysValues, ...]
    past_mask_BS: Tensor
    lengths_B: Tensor


class DecoderOnly(CodeOutput):
    """A causal transformer over [BEGIN, codes of item 1, codes of item 2, ...].

    The state at position s predicts flat code s, that is level s mod L of item s div L; so position s knows
    which item and level it is about to predict. A history of T items costs T x L + 1 positions. What is known
    of the user is added to BEGIN.
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
        # One row more than max_items: the item to be generated stands after a full history.
        self.item_position = nn.Embedding(config.max_items + 1, width)
        self.level_position = nn.Embedding(len(self.level_sizes), width)
        self.dropout = Dropout(config.attn_dropout)
        self.transformer = Transformer(width, config.attn_heads, config.attn_layers, config.attn_dropout)
        for table in (self.item_position, self.level_position):
            nn.init.normal_(table.weight, std=0.02)
        self.side = SideInformation(config.user_buckets, config.time_gaps, embed)

    def _place(self, vectors_BSE: Tensor, items: Tensor, levels: Tensor) -> Tensor:
        """Add to each input what it is about to predict: which item of the sequence, which level."""
        placed = self.widen(vectors_BSE) + self.item_position(items) + self.level_position(levels)
        return self.dropout(placed)

    def _sequence(self, batch: Batch, positions: int) -> Tensor:
        """Inputs [B, positions, D]: BEGIN, codes, cut off after `positions`."""
        vectors_BTLE = self.side.with_gaps(self.codes(batch.codes_BTL), batch.times_BT)
        begin_B1E = self.side.with_user(self.begin.expand(len(vectors_BTLE), 1, -1), batch.users_B)
        vectors_BSE = torch.cat([begin_B1E, vectors_BTLE.flatten(1, 2)], dim=1)[:, :positions]
        steps_S = torch.arange(positions, device=vectors_BSE.device)
        n_levels = len(self.level_sizes)
        return self._place(vectors_BSE, steps_S // n_levels, steps_S % n_levels)

    def forward(self, batch: Batch) -> TrainingLoss:
        """Cross-entropy of every code of every real item, given all codes before it; mean over codes."""
        n_items, n_levels = batch.codes_BTL.shape[1:]
        states_BSD, _ = self.transformer.causal(self._sequence(batch, n_items * n_levels))
        real_BT = torch.arange(n_items, device=batch.lengths_B.device) < batch.lengths_B[:, None]
        states_MLD = states_BSD.unflatten(1, (n_items, n_levels))[real_BT]
        logits_LMV = [self._logits(states_MLD[:, level], level) for level in range(n_levels)]
        return TrainingLoss.of(
            logits_LMV, batch.codes_BTL[real_BT], self.config.label_smoothing if self.training else 0.0
        )

    def encode(self, batch: Batch) -> Context:
        """Read each history once, an empty one included: BEGIN alone predicts a first item."""
        n_items, n_levels = batch.codes_BTL.shape[1:]
        positions = n_items * n_levels + 1
        last_B = batch.lengths_B * n_levels
        state_BD, past = self.transformer.last_state(self._sequence(batch, positions), last_B)
        past_mask_BS = torch.arange(positions, device=last_B.device) <= last_B[:, None]
        return Context(state_BD, past, past_mask_BS, batch.lengths_B)

    def next_level(self, context: Context, prefix_BKl: Tensor) -> Tensor:
        """Log-probabilities float32 [B, K, V] of the level after the prefix (see RetrievalModel)."""
        n_beams, level = prefix_BKl.shape[1:]
        if level == 0:
            log_probs_B1V = self._logits(context.state_BD, 0).float().log_softmax(-1)[:, None]
            return log_probs_B1V.expand(-1, n_beams, -1)
        levels_S = torch.arange(1, level + 1, device=prefix_BKl.device).repeat(n_beams)
        items_BS = context.lengths_B[:, None].expand(-1, n_beams * level)
        x_BSD = self._place(self.codes(prefix_BKl).flatten(1, 2), items_BS, levels_S)
        mask_BSP = beams_mask(context.past_mask_BS, n_beams, level)
        states_BSD = self.transformer.decode_step(x_BSD, context.past, mask_BSP)
        last_BKD = states_BSD.unflatten(1, (n_beams, level))[:, :, -1]
        return self._logits(last_BKD, level).float().log_softmax(-1)
