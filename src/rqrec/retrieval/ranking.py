"""Ranked items, and the ranking of a full catalogue by scores.

Shapes: B batch, K items of a list, N items of the catalogue, M columns, X excluded items, R rows of a block.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories

MAX_SCORES = 2**21  # that are ranked at once: 32 bytes each if many are equal
SPARE = 16  # columns beyond the best k, so that all ties with the k-th are usually among them


class Ranked(NamedTuple):
    """Items in descending order of score, ties by item index."""

    items: Tensor
    """int64 [B, k], padded with PADDING if fewer than k items are allowed."""
    scores: Tensor
    """float32 [B, k], minus infinity at padding; a retrieval model's scores are log-probabilities."""
    experts: Mapping[str, Tensor] = MappingProxyType({})
    """By expert of an ensemble: its own log-probabilities of the items, float32 [B, k]."""


class ItemRecommender(Protocol):
    """A recommender: ranks items for histories."""

    def recommend(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> Ranked:
        """The k best items of each history, item indices padded with PADDING."""


class ItemScorer(Protocol):
    """Scores the full catalogue for each history."""

    def score_items(self, histories: Histories) -> Tensor:
        """A score of every item for each history, float32 [B, N]; higher is better."""


@dataclass(frozen=True)
class ExhaustiveRecommender:
    """Recommends the items with the highest scores in the full catalogue."""

    scorer: ItemScorer

    def recommend(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> Ranked:
        """The k items with the highest scores; ties by item index."""
        (ranked,) = self.recommend_each(histories, k, (exclude_seen,))
        return ranked

    def recommend_each(self, histories: Histories, k: int, exclude_seen: Sequence[bool]) -> list[Ranked]:
        """`recommend` for each value of `exclude_seen`; the items are scored once."""
        scores_BN = self.scorer.score_items(histories)
        seen_BX = torch.from_numpy(histories.items_BT).to(scores_BN.device)
        return [rank_scores(scores_BN, k, excluded_BX=seen_BX if one else None) for one in exclude_seen]


def recommend_each(
    recommender: ItemRecommender, histories: Histories, k: int, exclude_seen: Sequence[bool]
) -> list[Ranked]:
    """The k best items of each history, once for each value of `exclude_seen`."""
    if isinstance(recommender, ExhaustiveRecommender):
        return recommender.recommend_each(histories, k, exclude_seen)
    return [recommender.recommend(histories, k, exclude_seen=one) for one in exclude_seen]


def order_keys(scores: Tensor, ties: Tensor) -> Tensor:
    """int64 keys that sort by score, then by descending tie; all distinct, so that top-k is unambiguous.

    The bits of a float32 sort like an integer once those of negative numbers are flipped. The tie, below 2**32,
    fills the lower half.
    """
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 turns -0.0 into 0.0
    bits = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
    return (bits << 32) + (0xFFFFFFFF - ties.long())


def rank_scores(scores_BN: Tensor, k: int, *, excluded_BX: Tensor | None = None) -> Ranked:
    """The k best items of a full score matrix, without the excluded ones; ties by item index."""
    n_items = scores_BN.shape[1]
    if excluded_BX is not None and excluded_BX.shape[1]:
        # Padding goes to an extra column, so that it masks no item.
        mask_BN = torch.zeros(len(scores_BN), n_items + 1, dtype=torch.bool, device=scores_BN.device)
        mask_BN.scatter_(1, torch.where(excluded_BX >= 0, excluded_BX, n_items), True)
        scores_BN = scores_BN.masked_fill(mask_BN[:, :n_items], -torch.inf)
    rows = max(1, MAX_SCORES // max(1, n_items))
    best = [best_columns(scores_RN.float(), k) for scores_RN in scores_BN.split(rows)]
    items_BK = torch.cat(best)
    return padded(items_BK, scores_BN.gather(1, items_BK), k)


def best_columns(
    scores_BM: Tensor, k: int, tie_of: Callable[[Tensor], Tensor] = lambda columns: columns
) -> Tensor:
    """Columns int64 [B, K] of the k best scores in descending order, equal ones by lower tie; all if there are fewer.

    `tie_of` gives the ties, below 2**32, of columns int64 [B, K]: by default the columns themselves. `topk` leaves
    open which of equal scores it takes. So it takes some more than k, which contain all that equal the k-th unless
    the last one does too; only then are all columns compared.
    """
    n_columns = scores_BM.shape[1]
    k = min(k, n_columns)
    values_BR, columns_BR = scores_BM.topk(min(k + SPARE, n_columns), dim=1)
    # Which columns have a score of minus infinity matters to nobody: they become padding.
    if 0 < k < values_BR.shape[1] < n_columns:
        last_B = values_BR[:, -1]
        if ((last_B == values_BR[:, k - 1]) & last_B.isfinite()).any():
            values_BR, columns_BR = (
                scores_BM,
                torch.arange(n_columns, device=scores_BM.device).expand_as(scores_BM),
            )
    order_BK = order_keys(values_BR, tie_of(columns_BR)).topk(k, dim=1).indices
    return columns_BR.gather(1, order_BK)


def padded(items_BK: Tensor, scores_BK: Tensor, k: int) -> Ranked:
    """Cut or pad to k columns; items without a finite score become padding."""
    items_BK = torch.where(scores_BK.isfinite(), items_BK, PADDING)[:, :k]
    short = max(0, k - items_BK.shape[1])
    scores_BK = functional.pad(scores_BK[:, :k], (0, short), value=-torch.inf)
    return Ranked(functional.pad(items_BK, (0, short), value=PADDING), scores_BK)
