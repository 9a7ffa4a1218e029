"""The evaluator that all recommenders share: full catalogue, item-level hits, every example.

Shapes: C examples, B examples of a batch, K recommended items.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rqrec.core.memory import FreeMemory
from rqrec.core.progress import track
from rqrec.data.sequences import Histories
from rqrec.data.splits import EvalExamples
from rqrec.evaluation.metrics import ranking_metrics, target_ranks
from rqrec.retrieval.ranking import ItemRecommender, Ranked

LIST_LENGTH = 10  # length of the recommended lists; the same as for validation during training


@dataclass(frozen=True)
class Evaluation:
    """The rank of each example's target, and the mean metrics over all examples.

    `ranks_C` int64: 0-based, MISSED if the target is not in the list.
    """

    ranks_C: NDArray[np.int64]
    metrics: dict[str, float]


def evaluate(
    recommender: ItemRecommender,
    examples: EvalExamples,
    *,
    exclude_seen: bool = True,
    batch_size: int = 128,
    description: str | None = None,
) -> Evaluation:
    """Rank the catalogue for every example and find the held-out item among the first ten.

    `exclude_seen`: whether items of the history are excluded; metrics with and without them are not comparable.
    With `description`, progress is shown. `rqrec.evaluation.measure` computes more than ranks.
    """
    ranks_C, targets_C = np.empty(len(examples), dtype=np.int64), examples.targets
    for rows, ((items_BK,),) in ranked_lists(
        lambda histories: [[recommender.recommend(histories, LIST_LENGTH, exclude_seen=exclude_seen)]],
        examples,
        batch_size=batch_size,
        description=description,
    ):
        ranks_C[rows] = target_ranks(items_BK, targets_C[rows])
    return Evaluation(ranks_C, ranking_metrics(ranks_C))


def ranked_lists(
    recommend: Callable[[Histories], Sequence[Sequence[Ranked]]],
    examples: EvalExamples,
    *,
    batch_size: int,
    description: str | None = None,
) -> Iterator[tuple[NDArray[np.int64], list[list[NDArray[np.int64]]]]]:
    """Yield, batch by batch, the indices of examples [B] and the items [B, K] of all lists that `recommend` gives.

    Examples are sorted by history length, so that batches contain little padding.
    """
    order_C = np.argsort(examples.lengths, kind="stable")
    slices, memory = list(examples.batches(batch_size)), FreeMemory()
    for part in track(slices, description) if description else slices:
        rows = order_C[part]
        lists = recommend(examples.histories(rows))
        yield rows, [[ranked.items.cpu().numpy() for ranked in one] for one in lists]
        memory.limit()
