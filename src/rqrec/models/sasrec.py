"""SASRec: self-attention over items (arXiv 1808.09781), trained with the full softmax over the catalogue.

The paper samples one negative per target; cross-entropy over all items gives far better rankings (arXiv 2309.07602).

Shapes: B batch, T items, S = T or T + 1 positions, D width, N items of the catalogue, M targets.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rqrec.core.values import Config, Depth, PositiveInt, Probability, Width
from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
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
    width: Width = 128
    """Width of the transformer and of the item embeddings; a multiple of the number of heads."""
    heads: Width = 2
    """Number of attention heads."""
    layers: Depth = 2
    """Number of transformer blocks."""
    dropout: Probability = 0.4
    """Dropout probability on the input embeddings and on the output of each attention and feed-forward layer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}.")


class SasRec(nn.Module):
    """A causal transformer over [BEGIN, item 1, item 2, ...] whose state at position s predicts item s + 1.

    Input and output share the item embeddings. For an empty history, BEGIN predicts a first item.
    """

    def __init__(self, config: SasRecConfig) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(config.n_items, config.width)
        self.positions = nn.Embedding(config.max_items + 1, config.width)  # BEGIN and a full history
        self.begin = nn.Parameter(torch.zeros(config.width))
        self.dropout = Dropout(config.dropout)
        self.transformer = Transformer(config.width, config.heads, config.layers, config.dropout)
        for table in (self.items, self.positions):
            nn.init.normal_(table.weight, std=0.02)

    def _inputs(self, items_BT: Tensor) -> Tensor:
        """Transformer inputs [B, T + 1, D]: BEGIN and the items. Inputs at padding are never used."""
        vectors_BTD = self.items(items_BT.clamp(min=0))
        vectors_BSD = torch.cat([self.begin.expand(len(items_BT), 1, -1), vectors_BTD], dim=1)
        return self.dropout(vectors_BSD + self.positions.weight[: vectors_BSD.shape[1]])

    def forward(self, items_BT: Tensor) -> Tensor:
        """Mean cross-entropy of all real items in nats, each given the items before it.

        `items_BT` int64 with at most max_items + 1 columns, padded on the right with PADDING. Logits are computed
        only for real items, one block at a time.
        """
        states_BTD, _ = self.transformer.causal(self._inputs(items_BT[:, :-1]))
        real_BT = items_BT != PADDING
        return catalogue_cross_entropy(states_BTD[real_BT], self.items.weight, items_BT[real_BT])

    @torch.inference_mode()
    def score_items(self, histories: Histories) -> Tensor:
        """The logit of every item for each history, float32 [B, N]."""
        items_BT = torch.from_numpy(histories.last(self.config.max_items).items_BT)
        items_BT = items_BT.to(self.items.weight.device)
        lengths_B = (items_BT != PADDING).sum(1)
        states_BD, _ = self.transformer.last_state(self._inputs(items_BT), lengths_B)
        return functional.linear(states_BD, self.items.weight).float()
