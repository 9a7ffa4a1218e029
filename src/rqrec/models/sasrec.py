"""SASRec: self-attention over items (arXiv 1808.09781), trained with the full softmax over the catalogue.

The paper samples one negative per target; cross-entropy over all items gives far better rankings (arXiv 2309.07602).
It is the baseline with one learned vector per item, and the dense expert of a recommender.

Shapes: B batch, T items, S = T + 1 positions, D width, N items of the catalogue.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from rqrec.core.values import Config, Depth, PositiveInt, Probability, Range, Width
from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
from rqrec.models.item_input import ItemContent
from rqrec.models.layers import Dropout, Transformer
from rqrec.models.softmax import catalogue_cross_entropy


@dataclass(frozen=True)
class SasRecConfig(Config):
    """Sizes of a SASRec model.

    Raises ValueError on values out of range.
    """

    n_items: PositiveInt
    """Number of items in the catalogue."""
    max_items: Width = 50
    """Number of most recent items of a history that the model reads."""
    width: Width = 64
    """Width of the transformer and of the item embeddings; a multiple of the number of heads."""
    heads: Width = 2
    """Number of attention heads."""
    layers: Depth = 2
    """Number of transformer blocks."""
    dropout: Probability = 0.5
    """Dropout probability on the input embeddings and on the output of each attention and feed-forward layer."""

    content_dim: Annotated[int, Range(0, 2**20)] = 0
    """Width of an item's content vector, a linear map of which is added to the item's vector (0: none)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}.")


class SasRec(nn.Module):
    """A causal transformer over [BEGIN, item 1, ..., item T], whose last state predicts the next item.

    Input and output share the item vectors; at the input they are multiplied by the root of the width (arXiv
    1706.03762, section 3.4), without which positions drown them. Positions are counted from the end of the history:
    what matters is how long ago an item was taken. For an empty history, BEGIN predicts a first item.
    """

    def __init__(self, config: SasRecConfig) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(config.n_items, config.width)
        self.positions = nn.Embedding(
            config.max_items + 1, config.width
        )  # a full history and BEGIN before it
        self.begin = nn.Parameter(torch.zeros(config.width))
        self.dropout = Dropout(config.dropout)
        self.transformer = Transformer(config.width, config.heads, config.layers, config.dropout)
        for table in (self.items, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        self.content = (
            ItemContent(config.n_items, config.content_dim, config.width, std=0.02)
            if config.content_dim
            else None
        )
        self._vectors_ND: Tensor | None = None  # in evaluation mode, once they are computed

    def train(self, mode: bool = True) -> "SasRec":
        """Set training or evaluation mode; in the latter the item vectors are computed once."""
        self._vectors_ND = None
        return super().train(mode)

    def _table(self) -> Tensor:
        """The vector of every item, [N, D]."""
        return self.items.weight if self.content is None else self.items.weight + self.content()

    def states(self, items_BT: Tensor, table_ND: Tensor) -> Tensor:
        """States [B, D] after each history of at most max_items items, padded on the right with PADDING."""
        lengths_B = (items_BT != PADDING).sum(1)
        vectors_BTD = functional.embedding(items_BT.clamp(min=0), table_ND) * self.config.width**0.5
        vectors_BSD = torch.cat([self.begin.expand(len(items_BT), 1, -1), vectors_BTD], dim=1)
        ages_BS = lengths_B[:, None] - torch.arange(vectors_BSD.shape[1], device=items_BT.device)
        x_BSD = self.dropout(vectors_BSD + self.positions(ages_BS.clamp(min=0)))
        states_BD, _ = self.transformer.last_state(x_BSD, lengths_B)
        return states_BD

    def forward(self, items_BT: Tensor) -> Tensor:
        """Mean cross-entropy of the last item of each row, given the items before it, in nats.

        `items_BT` int64 with at most max_items + 1 columns, padded on the right with PADDING. Logits are computed one
        block of rows at a time.
        """
        last_B1 = (items_BT != PADDING).sum(1, keepdim=True) - 1
        histories_BT = items_BT.scatter(1, last_B1, PADDING)[:, :-1]
        targets_B = items_BT.gather(1, last_B1)[:, 0]
        table_ND = self._table()
        return catalogue_cross_entropy(self.states(histories_BT, table_ND), table_ND, targets_B)

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """The vector of every item, [N, D]: its logit is the product with the state of a history."""
        if self.training:
            return self._table().detach()
        if self._vectors_ND is None or self._vectors_ND.device != self.items.weight.device:
            self._vectors_ND = self._table().detach()
        return self._vectors_ND

    @torch.inference_mode()
    def encode(self, histories: Histories) -> Tensor:
        """States [B, D] after each history. An empty history is BEGIN alone, which predicts a first item."""
        items_BT = torch.from_numpy(histories.last(self.config.max_items).items_BT)
        return self.states(items_BT.to(self.items.weight.device), self.item_vectors())

    @torch.inference_mode()
    def score_items(self, histories: Histories) -> Tensor:
        """The logit of every item for each history, float32 [B, N]."""
        return functional.linear(self.encode(histories), self.item_vectors()).float()
