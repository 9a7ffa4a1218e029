"""The hierarchical model: a causal transformer over items, and a small decoder over the next item's codes.

The RQ-Transformer (arXiv 2203.01941, section 3.2) for recommendation: its spatial transformer reads items instead
of image positions. Its depth transformer reads, at each position, the sum of the embeddings of the codes so far. Here
a feed-forward layer without attention to earlier sums replaces the depth transformer: it is as accurate and takes
three quarters of the time (docs/experiments.md).

Shapes: B batch, T items, M target items, R targets that have a choice (summed over levels), L levels, D width of the
transformer over items, E width of the decoder over codes, K beams, l codes of a prefix, V codes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rqrec.core.values import Depth, Probability, Width
from rqrec.models.code_output import CodeOutput
from rqrec.models.feed_forward import FeedForward
from rqrec.models.item_input import ItemInput
from rqrec.models.layers import CodeEmbedding, Dropout, Transformer, initialize
from rqrec.models.retrieval_model import Batch, ModelConfig
from rqrec.models.side_information import SideInformation
from rqrec.models.trie_softmax import TrainingLoss
from rqrec.tokenizer.trie import Trie


@dataclass(frozen=True)
class HierarchicalConfig(ModelConfig):
    """Sizes of a hierarchical model.

    The decoder over codes runs once per code, the transformer over items only once per item, so a narrow decoder
    makes training and beam search cheap.
    """

    decoder_embed_dim: Width = 96
    """Width of a code's embedding, and of the decoder over codes."""
    attn_embed_dim: Width = 256
    """Width of the transformer over items; a multiple of attn_heads."""
    attn_heads: Width = 8
    """Number of attention heads."""
    attn_layers: Depth = 2
    """Number of transformer blocks."""
    attn_dropout: Probability = 0.2
    """Dropout probability on the input embeddings and on the output of each attention and feed-forward layer."""


class Hierarchical(CodeOutput):
    """A causal transformer over items, and at each of its states a decoder over the codes of the next item.

    An item is a linear map of its concatenated code embeddings, plus its position embedding. State t of the
    transformer over [BEGIN, item 1, item 2, ...] predicts item t + 1: code l comes from a feed-forward layer over the
    sum of the state and the embeddings of codes 0 to l - 1. A history of T items takes T + 1 positions, and each code
    of a beam only one feed-forward layer. The user's embedding, if any, is added to BEGIN, and the embedding of the
    time since the previous item to each item.
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
        self.item_position = nn.Embedding(config.max_items + 1, width)  # BEGIN and a full history
        self.dropout = Dropout(config.attn_dropout)
        self.transformer = Transformer(width, config.attn_heads, config.attn_layers, config.attn_dropout)
        self.to_codes = nn.Linear(width, embed, bias=False) if embed != width else nn.Identity()
        self.level_position = nn.Embedding(n_levels, embed)
        self.code_norm = nn.LayerNorm(embed)
        self.code_decoder = FeedForward(embed, 4 * embed)
        self.output_norm = nn.LayerNorm(embed)
        self._build_output(config, embed)
        initialize(self.code_decoder, layers=1)
        for table in (self.item_position, self.level_position):
            nn.init.normal_(table.weight, std=0.02)
        self.side = SideInformation(config.user_buckets, config.time_gaps, width)
        self.item_input = ItemInput(config.n_items, config.content_dim, config.item_embed_dim, width)

    def _sequence(self, batch: Batch, n_items: int) -> Tensor:
        """Transformer inputs [B, T + 1, D]: BEGIN and the first `n_items` items."""
        items_BTD = self.item(self.codes(batch.codes_BTL[:, :n_items]).flatten(2)) * self.config.input_scale
        items_BT1D = self.item_input.added(items_BTD[:, :, None], batch.items_BT)
        items_BTD = self.side.with_gaps(items_BT1D, batch.times_BT)[:, :, 0]
        begin_B1D = self.side.with_user(self.begin.expand(len(items_BTD), 1, -1), batch.users_B)
        x_BTD = torch.cat([begin_B1D, items_BTD], dim=1)
        return self.dropout(x_BTD + self.item_position.weight[: x_BTD.shape[1]])

    def _decode(self, states: Tensor, so_far: Tensor, level_positions: Tensor) -> Tensor:
        """Decoder states [..., E] from item states, sums of the embeddings of codes so far, and level positions."""
        x = states + self.dropout(so_far + level_positions)
        return self.output_norm(x + self.dropout(self.code_decoder(self.code_norm(x))))

    def forward(self, batch: Batch, trie: Trie) -> TrainingLoss:
        """Mean cross-entropy over the codes of all real items, each given all codes before it."""
        n_items = batch.codes_BTL.shape[1]
        states_BTD, _ = self.transformer.causal(self._sequence(batch, n_items - 1))
        real_BT = torch.arange(n_items, device=batch.lengths_B.device) < batch.lengths_B[:, None]
        choices = self.choices(batch, trie)
        states_ME = self.to_codes(states_BTD[real_BT])
        so_far_MLE = functional.pad(self.codes(batch.codes_BTL[real_BT][:, :-1]).cumsum(1), (0, 0, 1, 0))
        # One pass of the decoder over the choices of all levels, and none over targets without a choice.
        states_RE = torch.cat([states_ME.index_select(0, choice.rows_R) for choice in choices])
        so_far_RE = torch.cat(
            [so_far_MLE[:, level].index_select(0, choice.rows_R) for level, choice in enumerate(choices)]
        )
        sizes = [len(choice.rows_R) for choice in choices]
        positions_RE = torch.cat(
            [self.level_position.weight[level].expand(size, -1) for level, size in enumerate(sizes)]
        )
        x_RE = self._decode(states_RE, so_far_RE, positions_RE)
        return self._loss(x_RE.split(sizes), choices, len(states_ME))

    def encode(self, batch: Batch) -> Tensor:
        """States [B, E] after each history. An empty history is BEGIN alone, which predicts a first item."""
        state_BD, _ = self.transformer.last_state(
            self._sequence(batch, batch.codes_BTL.shape[1]), batch.lengths_B
        )
        return self.to_codes(state_BD)

    def state(self, context: Tensor) -> Tensor:
        """The state [B, D] of each history, from which the first code of the next item is predicted."""
        return context

    def next_logits(self, context: Tensor, prefix_BKl: Tensor) -> Tensor:
        """Logits [B, K, V] of the level after the prefix (see RetrievalModel)."""
        n_beams, level = prefix_BKl.shape[1:]
        if level == 0:
            prefix_BKl = prefix_BKl[:, :1]
        so_far_BKE = self.codes(prefix_BKl).sum(2)
        x_BKE = self._decode(context[:, None], so_far_BKE, self.level_position.weight[level])
        return self._logits(x_BKE, level).expand(-1, n_beams, -1)
