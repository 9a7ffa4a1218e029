"""One evaluator for every recommender: the full catalogue, items and not semantic IDs, all cases.

Shapes: C cases, B cases of a batch, K recommended items.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rqrec.core.progress import track
from rqrec.data.splits import EvalExamples
from rqrec.evaluation.metrics import ranking_metrics, target_ranks
from rqrec.retrieval.ranking import ItemRecommender

LENGTH = 10  # items of a list where nothing else is said; training validates on as many


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
    cases: EvalExamples,
    *,
    exclude_seen: bool = True,
    batch_size: int = 128,
    description: str | None = None,
) -> Evaluation:
    """Rank the catalogue for every case and look where the held-out item stands among the first ten.

    With `description` the progress is shown. For more than ranks see `rqrec.evaluation.measure`.
    """
    ranks_C, targets_C = np.empty(len(cases), dtype=np.int64), cases.targets
    for rows, items_BK in ranked_lists(
        recommender,
        cases,
        LENGTH,
        exclude_seen=exclude_seen,
        batch_size=batch_size,
        description=description,
    ):
        ranks_C[rows] = target_ranks(items_BK, targets_C[rows])
    return Evaluation(ranks_C, ranking_metrics(ranks_C), exclude_seen)


def ranked_lists(
    recommender: ItemRecommender,
    cases: EvalExamples,
    k: int,
    *,
    exclude_seen: bool,
    batch_size: int,
    description: str | None = None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Batch by batch, which cases [B] and their recommended items [B, K].

    EvalExamples come in the order of their histories' lengths: little of a batch is padding then.
    """
    order_C = np.argsort(cases.lengths, kind="stable")
    slices = list(cases.batches(batch_size))
    for part in track(slices, description) if description else slices:
        rows = order_C[part]
        ranked = recommender.recommend(cases.histories(rows), k, exclude_seen=exclude_seen)
        yield rows, ranked.items.cpu().numpy()
