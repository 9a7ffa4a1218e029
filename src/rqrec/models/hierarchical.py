"""The hierarchical model: a causal transformer over items, and a small decoder over the next item's codes.

The RQ-Transformer (arXiv 2203.01941, section 3.2) brought to recommendation: its spatial transformer reads
items instead of places of an image. Its depth transformer reads at each place the sum of the codes so far; here
that sum goes straight to a feed-forward layer, without attention to the sums before it: as good, in three quarters
of the time (docs/experiments.md).

Shapes: B batch, T items, M items that are targets, L levels, D width of the transformer over items, E that of the
decoder over codes, K beams, l codes of a prefix, V codes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rqrec.models.code_output import CodeOutput
from rqrec.models.interface import Batch, ModelConfig, TrainingLoss
from rqrec.models.layers import CodeEmbedding, Dropout, Transformer, feed_forward, initialize
from rqrec.models.side_information import SideInformation


@dataclass(frozen=True)
class HierarchicalConfig(ModelConfig):
    """Sizes of a hierarchical model.

    The decoder over codes is as wide as a code's embedding. It works once for each code where the transformer over
    items works once for an item, so that narrowing it makes training and beam search cheap.
    """

    decoder_embed_dim: int = 96
    attn_embed_dim: int = 256
    attn_heads: int = 8
    attn_layers: int = 2
    attn_dropout: float = 0.2


class Hierarchical(CodeOutput):
    """A causal transformer over items; at each of its states, a decoder over the codes of the item that follows.

    An item is a linear map of its codes' embeddings side by side, plus its position. State t of the
    transformer over [BEGIN, item 1, item 2, ...] is what item t + 1 follows from: its code l comes from a
    feed-forward layer over the sum of the state and the embeddings of codes 0 to l - 1. A history of T items costs
    T + 1 positions, and a beam no more than one feed-forward layer. What is known of the user is added
    to BEGIN, the time since the item before to an item.
    """

    def __init__(self, config: HierarchicalConfig) -> None:
        super().__init__()
        self.config = config
        self.level_sizes, self.max_items = config.level_sizes, config.max_items
        embed, width = config.decoder_embed_dim, config.attn_embed_dim
        n_levels = len(self.level_sizes)
        self.codes = CodeEmbedding(self.level_sizes, embed)
        self.item = nn.Linear(n_levels * embed, width)
        self.begin = nn.Parameter(torch.zeros(width))
        self.item_position = nn.Embedding(config.max_items + 1, width)  # BEGIN, and a full history
        self.dropout = Dropout(config.attn_dropout)
        self.transformer = Transformer(width, config.attn_heads, config.attn_layers, config.attn_dropout)
        self.to_codes = nn.Linear(width, embed, bias=False) if embed != width else nn.Identity()
        self.level_position = nn.Embedding(n_levels, embed)
        self.code_norm = nn.LayerNorm(embed)
        self.code_decoder = feed_forward(embed, 4 * embed)
        self.output_norm = nn.LayerNorm(embed)
        self._build_output(config, embed)
        initialize(self.code_decoder, layers=1)
        for table in (self.item_position, self.level_position):
            nn.init.normal_(table.weight, std=0.02)
        self.side = SideInformation(config.user_buckets, config.time_gaps, width)

    def _sequence(self, batch: Batch, n_items: int) -> Tensor:
        """Inputs [B, T + 1, D] of the transformer over the first `n_items` items: BEGIN, items."""
        items_BTD = self.item(self.codes(batch.codes_BTL[:, :n_items]).flatten(2))
        items_BTD = self.side.with_gaps(items_BTD[:, :, None], batch.times_BT)[:, :, 0]
        begin_B1D = self.side.with_user(self.begin.expand(len(items_BTD), 1, -1), batch.users_B)
        x_BTD = torch.cat([begin_B1D, items_BTD], dim=1)
        return self.dropout(x_BTD + self.item_position.weight[: x_BTD.shape[1]])

    def _decode(self, states: Tensor, so_far: Tensor, places: Tensor) -> Tensor:
        """What logits come from [..., E]: a function of states, sums of the codes so far and places of levels."""
        x = states + self.dropout(so_far + places)
        return self.output_norm(x + self.dropout(self.code_decoder(self.code_norm(x))))

    def forward(self, batch: Batch) -> TrainingLoss:
        """Cross-entropy of every code of every real item, given all codes before it; mean over codes."""
        n_items = batch.codes_BTL.shape[1]
        states_BTD, _ = self.transformer.causal(self._sequence(batch, n_items - 1))
        real_BT = torch.arange(n_items, device=batch.lengths_B.device) < batch.lengths_B[:, None]
        targets_ML = batch.codes_BTL[real_BT]
        states_M1E = self.to_codes(states_BTD[real_BT])[:, None]
        so_far_MLE = functional.pad(self.codes(targets_ML[:, :-1]).cumsum(1), (0, 0, 1, 0))
        x_MLE = self._decode(states_M1E, so_far_MLE, self.level_position.weight)
        return TrainingLoss.of(
            [self._logits(x_ME, level) for level, x_ME in enumerate(x_MLE.unbind(1))],
            targets_ML,
            self.config.label_smoothing if self.training else 0.0,
        )

    def encode(self, batch: Batch) -> Tensor:
        """States [B, E] after each history, an empty one included: BEGIN alone predicts a first item."""
        state_BD, _ = self.transformer.last_state(
            self._sequence(batch, batch.codes_BTL.shape[1]), batch.lengths_B
        )
        return self.to_codes(state_BD)

    def next_level(self, context: Tensor, prefix_BKl: Tensor) -> Tensor:
        """Log-probabilities float32 [B, K, V] of the level after the prefix (see RetrievalModel)."""
        n_beams, level = prefix_BKl.shape[1:]
        if level == 0:
            prefix_BKl = prefix_BKl[:, :1]
        so_far_BKE = self.codes(prefix_BKl).sum(2)
        x_BKE = self._decode(context[:, None], so_far_BKE, self.level_position.weight[level])
        log_probs_BKV = self._logits(x_BKE, level).float().log_softmax(-1)
        return log_probs_BKV.expand(-1, n_beams, -1)
