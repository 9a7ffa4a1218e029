"""Ranking metrics for one held-out item per case, on items (never on semantic IDs).

With one relevant item, recall@k is the hit rate, and the ideal DCG is 1.
Shapes: C cases, K recommended items.
"""

import numpy as np
from numpy.typing import NDArray

MISSED = np.iinfo(np.int64).max  # the rank of a target that was not recommended


def target_ranks(items_CK: NDArray[np.int64], targets_C: NDArray[np.int64]) -> NDArray[np.int64]:
    """The 0-based place of each target in its list, MISSED where it is not there."""
    hits_CK = items_CK == targets_C[:, None]
    return np.where(hits_CK.any(axis=1), hits_CK.argmax(axis=1), MISSED).astype(np.int64)


def recall_at(k: int, ranks_C: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 for each case whose target is among the first k, else 0."""
    return (ranks_C < k).astype(np.float64)


def ndcg_at(k: int, ranks_C: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 / log2(rank + 2) for each case whose target is among the first k, else 0 (0-based rank)."""
    ranks_C = ranks_C.astype(np.float64)
    return np.where(ranks_C < k, 1.0 / np.log2(ranks_C + 2.0), 0.0)


def ranking_metrics(ranks_C: NDArray[np.int64]) -> dict[str, float]:
    """Recall@{1, 5, 10} and NDCG@{5, 10}, each the mean over all cases."""
    if not len(ranks_C):
        raise ValueError("There are no cases to evaluate: a metric over none has no value.")
    metrics = {f"recall@{k}": float(recall_at(k, ranks_C).mean()) for k in (1, 5, 10)}
    metrics |= {f"ndcg@{k}": float(ndcg_at(k, ranks_C).mean()) for k in (5, 10)}
    return metrics
