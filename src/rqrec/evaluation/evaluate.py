"""One evaluator for every recommender: the full catalogue, items and not semantic IDs, all cases."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rqrec.data.sequences import Histories
from rqrec.data.splits import Cases
from rqrec.evaluation.metrics import ranking_metrics, target_ranks
from rqrec.progress import track
from rqrec.retrieval.beam_search import Ranked

CUTOFF = 10  # the largest k of the metrics


class ItemRecommender(Protocol):
    """Anything that ranks items for histories."""

    def recommend(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> Ranked:
        """The k best items of each history, item indices padded with PADDING."""


@dataclass(frozen=True)
class Evaluation:
    """The rank of each case's target, and the means over all cases.

    `exclude_seen` is part of the protocol: whether items of the history could be recommended.
    """

    ranks_C: NDArray[np.int64]
    metrics: dict[str, float]
    exclude_seen: bool


def evaluate(
    recommender: ItemRecommender,
    cases: Cases,
    *,
    exclude_seen: bool = True,
    batch_size: int = 128,
    description: str | None = None,
) -> Evaluation:
    """Rank the catalogue for every case and look where the held-out item stands.

    With `description` the progress is shown.
    """
    ranks = []
    slices = list(cases.batches(batch_size))
    for part in track(slices, description) if description else slices:
        ranked = recommender.recommend(cases.histories(part), CUTOFF, exclude_seen=exclude_seen)
        ranks.append(target_ranks(ranked.items.cpu().numpy(), cases.targets[part]))
    ranks_C = np.concatenate(ranks)
    return Evaluation(ranks_C, ranking_metrics(ranks_C), exclude_seen)
