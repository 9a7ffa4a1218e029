"""Ranking metrics with one held-out item per example. Hits are items, not semantic IDs, unless a name says so.

With one relevant item, recall@k equals the hit rate, and the ideal DCG is 1.
Shapes: C examples, K recommended items, N items of the catalogue.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MISSED = np.iinfo(np.int64).max  # the rank of a target that was not recommended


def target_ranks(items_CK: NDArray[np.int64], targets_C: NDArray[np.int64]) -> NDArray[np.int64]:
    """The 0-based rank of each target in its list, MISSED if it is not there."""
    hits_CK = items_CK == targets_C[:, None]
    return np.where(hits_CK.any(axis=1), hits_CK.argmax(axis=1), MISSED).astype(np.int64)


def target_id_ranks(
    items_CK: NDArray[np.int64], targets_C: NDArray[np.int64], keys_N: NDArray[np.int64]
) -> NDArray[np.int64]:
    """ID-level ranks: items with the same key share one rank, and any of them is a hit.

    `keys_N`, non-negative, are equal for items that share their codes apart from the deduplication code.
    Implementations that rank semantic IDs count this way. `items_CK` are padded with PADDING.
    """
    keys_CK = np.where(items_CK >= 0, keys_N[items_CK], -1)
    same_key_CKK = keys_CK[:, :, None] == keys_CK[:, None, :]
    repeated_CK = np.tril(same_key_CKK, -1).any(axis=2)
    key_ranks_CK = np.cumsum(~repeated_CK, axis=1) - 1
    ranks_C = target_ranks(keys_CK, keys_N[targets_C])
    hit_C = ranks_C != MISSED
    ranks_C[hit_C] = key_ranks_CK[hit_C, ranks_C[hit_C]]
    return ranks_C


def recall_at(k: int, ranks_C: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 for each example whose target is among the first k, else 0."""
    return (ranks_C < k).astype(np.float64)


def ndcg_at(k: int, ranks_C: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 / log2(rank + 2) for each example whose target is among the first k, else 0 (0-based rank)."""
    ranks_C = ranks_C.astype(np.float64)
    return np.where(ranks_C < k, 1.0 / np.log2(ranks_C + 2.0), 0.0)


def mrr_at(k: int, ranks_C: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 / (rank + 1) for each example whose target is among the first k, else 0 (0-based rank)."""
    return np.where(ranks_C < k, 1.0 / (ranks_C.astype(np.float64) + 1.0), 0.0)


METRICS = {"recall": recall_at, "hit_rate": recall_at, "ndcg": ndcg_at, "mrr": mrr_at}
CUTOFFS = (1, 5, 10, 20)
ALL = tuple(f"{metric}@{k}" for metric in METRICS for k in CUTOFFS)
BASIC = ("recall@1", "recall@5", "recall@10", "ndcg@5", "ndcg@10")  # need lists of 10 items


def per_example(name: str, ranks_C: NDArray[np.int64]) -> NDArray[np.float64]:
    """A metric such as "ndcg@10" of each example; lists must be at least as long as the cutoff."""
    metric, cutoff = name.split("@")
    return METRICS[metric](int(cutoff), ranks_C)


def ranking_metrics(ranks_C: NDArray[np.int64], names: Sequence[str] = BASIC) -> dict[str, float]:
    """The mean of each metric over all examples; by default recall@{1, 5, 10} and NDCG@{5, 10}.

    Raises ValueError if there are no examples.
    """
    if not len(ranks_C):
        raise ValueError("There are no examples to evaluate, so the metrics are undefined.")
    return {name: float(per_example(name, ranks_C).mean()) for name in names}
