"""Tunes the mixture of a trained model with its kNN index on the validation split.

Shapes: B examples, C candidates.
"""

from itertools import product

import torch
from torch import Tensor

from rqrec.core.progress import track
from rqrec.data.splits import EvalExamples
from rqrec.knn.index import KnnIndex
from rqrec.retrieval.retriever import Retriever

WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
POWERS = (1.0, 2.0, 3.0, 4.0)
BATCH_SIZE = 128
CUTOFF = 10  # of NDCG


@torch.inference_mode()
def tune_knn_mixture(
    retriever: Retriever,
    validation: EvalExamples,
    *,
    exclude_seen: bool = True,
    validation_users: int | None = None,
) -> KnnIndex:
    """The retriever's kNN index with the weight and power that give its mixture the best validation NDCG@10.

    One search per validation example (every n-th, at most `validation_users`) gives the candidates of every
    combination. Raises ValueError if the retriever has no kNN index.
    """
    if retriever.knn is None:
        raise ValueError("The retriever has no kNN index to tune.")
    examples = validation.strided(-(-len(validation) // (validation_users or len(validation))))
    grid = [*product(WEIGHTS, POWERS)]
    ndcg_sums = torch.zeros(len(grid), dtype=torch.float64)
    for part in track(list(examples.batches(BATCH_SIZE)), "Tuning the kNN mixture"):
        targets_B = torch.from_numpy(examples.targets[part]).to(retriever.device)
        found = retriever.candidates(examples.histories(part), exclude_seen=exclude_seen)
        for point, (weight, power) in enumerate(grid):
            ndcg_sums[point] += _ndcg_sum(found.items_BC, found.log_p_mixture(weight, power), targets_B)
    weight, power = grid[int(ndcg_sums.argmax())]
    return retriever.knn.with_settings(weight=weight, power=power)


def _ndcg_sum(items_BC: Tensor, log_p_BC: Tensor, targets_B: Tensor) -> float:
    """The sum of NDCG@10 over the examples, each with one relevant item."""
    target_B = log_p_BC.masked_fill(items_BC != targets_B[:, None], -torch.inf).amax(1)
    rank_B = (log_p_BC > target_B[:, None]).sum(1)
    is_hit_B = (rank_B < CUTOFF) & target_B.isfinite()
    return float((is_hit_B / torch.log2(rank_B + 2.0)).sum())
