"""The hierarchical model: a causal transformer over items, and a small causal decoder over an item's codes.

The RQ-Transformer (arXiv 2203.01941, section 3.2) brought to recommendation: its spatial transformer reads
items instead of places of an image, its depth transformer generates the codes of the next one.

Shapes: B batch, T items, M items that are targets, L levels, D width of the transformer over items, E that of the
decoder over codes, K beams, l codes of a prefix, V codes, R rows of the embedding, H heads, d width of a head.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from rqrec.retrieval.code_output import CodeOutput
from rqrec.retrieval.kv_cache import KeysValues
from rqrec.retrieval.layers import CodeEmbedding, Dropout, Transformer
from rqrec.retrieval.model import Batch, ModelConfig, TrainingLoss
from rqrec.retrieval.side_information import SideInformation


@dataclass(frozen=True)
class HierarchicalConfig(ModelConfig):
    """Sizes of a hierarchical model.

    The decoder over codes is one block as wide as a code's embedding, with as many heads as the transformer over
    items. It has a place for each code where that one has one for an item, so that narrowing it is what makes
    training and beam search cheap.
    """

    decoder_embed_dim: int = 96
    attn_embed_dim: int = 256
    attn_heads: int = 8
    attn_layers: int = 2
    attn_dropout: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder_embed_dim % self.attn_heads:
            raise ValueError(
                f"decoder_embed_dim {self.decoder_embed_dim} is not a multiple of attn_heads {self.attn_heads}, as "
                "the hierarchical model needs: its decoder over codes is as wide as their embeddings."
            )


class Context(NamedTuple):
    """What is kept of a history: the code decoder's output after it, and its keys and values [B, H, 1, d]."""

    state_BE: Tensor
    past: KeysValues


class Hierarchical(CodeOutput):
    """Two causal transformers, one within the other.

    An item is a linear map of its codes' embeddings side by side, plus its position. State t of the
    transformer over [BEGIN, item 1, item 2, ...] is what item t + 1 follows from: the decoder over codes
    reads [state, code 0, code 1, ...], and its output at place l gives code l. A history of T items costs
    T + 1 positions, and a beam no more than one place of the small decoder. What is known of the user is added
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
        self.code_decoder = Transformer(embed, config.attn_heads, 1, config.attn_dropout)
        self._build_output(config, embed)
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

    def forward(self, batch: Batch) -> TrainingLoss:
        """Cross-entropy of every code of every real item, given all codes before it; mean over codes."""
        n_items = batch.codes_BTL.shape[1]
        states_BTD, _ = self.transformer.causal(self._sequence(batch, n_items - 1))
        real_BT = torch.arange(n_items, device=batch.lengths_B.device) < batch.lengths_B[:, None]
        targets_ML = batch.codes_BTL[real_BT]
        states_M1E = self.to_codes(states_BTD[real_BT])[:, None]
        x_MLE = torch.cat([states_M1E, self.codes(targets_ML[:, :-1])], dim=1) + self.level_position.weight
        out_MLE, _ = self.code_decoder.causal(self.dropout(x_MLE))
        return TrainingLoss.of(
            [self._logits(out_MLE[:, level], level) for level in range(len(self.level_sizes))],
            targets_ML,
            self.config.label_smoothing if self.training else 0.0,
        )

    def encode(self, batch: Batch) -> Context:
        """Read each history once, an empty one included: BEGIN alone predicts a first item."""
        state_BD, _ = self.transformer.at(self._sequence(batch, batch.codes_BTL.shape[1]), batch.lengths_B)
        x_B1E = self.dropout(self.to_codes(state_BD) + self.level_position.weight[0])[:, None]
        out_B1E, (past,) = self.code_decoder.causal(x_B1E)
        return Context(out_B1E[:, 0], past)

    def next_level(self, context: Context, prefix_BKl: Tensor) -> Tensor:
        """Log-probabilities float32 [B, K, V] of the level after the prefix (see RetrievalModel).

        Only the last code of a prefix goes through the block; of those before it the keys and values are
        all that matters, since in the first block they follow from the code alone.
        """
        n_beams, level = prefix_BKl.shape[1:]
        if level == 0:
            log_probs_B1V = self._logits(context.state_BE, 0).float().log_softmax(-1)[:, None]
            return log_probs_B1V.expand(-1, n_beams, -1)
        x, query, own = self._inputs(prefix_BKl)
        out_BKE = self.code_decoder.first_block.one(x, query, context.past, own)
        return self._logits(self.code_decoder.norm(out_BKE), level).float().log_softmax(-1)

    def _inputs(self, prefix_BKl: Tensor) -> tuple[Tensor, Tensor, KeysValues]:
        """The last code as input of the code decoder and its query [B, K, E]; keys, values [B, K, l, E] of all.

        They follow from the codes alone, so that they are worked out for each code asked for or once for
        each code there is, whichever is less.
        """
        level = prefix_BKl.shape[2]
        block, position = self.code_decoder.first_block, self.level_position.weight[1 : level + 1]
        n_rows = sum(self.level_sizes[:level])
        if prefix_BKl.numel() < n_rows:
            x = self.codes(prefix_BKl) + position
            query, keys, values = block.project(x)
            return x[:, :, -1], query[:, :, -1], KeysValues(keys, values)
        sizes = torch.tensor(self.level_sizes[:level], device=prefix_BKl.device)
        x_RE = self.codes.table.weight[:n_rows] + position.repeat_interleave(sizes, dim=0)
        query_RE, keys_RE, values_RE = block.project(x_RE)
        rows_BKl = prefix_BKl + self.codes.offsets[:level]
        x, query = (functional.embedding(rows_BKl[:, :, -1], table) for table in (x_RE, query_RE))
        keys, values = (functional.embedding(rows_BKl, table) for table in (keys_RE, values_RE))
        return x, query, KeysValues(keys, values)
