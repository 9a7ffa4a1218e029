"""Exposure: which items a recommender shows over all users (coverage, novelty, popularity bias).

Everything is computed from one counter per item, so no recommended list has to be kept.
Shapes: N items of the catalogue.
"""

import numpy as np
from numpy.typing import NDArray


def gini(counts_N: NDArray[np.integer]) -> float:
    """The Gini coefficient of the counts: 0 if all are equal, close to 1 if one item has them all."""
    ascending = np.sort(counts_N).astype(np.float64)
    ranks = np.arange(1, len(ascending) + 1)
    total = ascending.sum()
    return float((2 * ranks - len(ascending) - 1) @ ascending / (len(ascending) * total)) if total else 0.0


def exposure(shown_N: NDArray[np.int64], train_counts_N: NDArray[np.int64]) -> dict[str, float]:
    """How recommendations spread over the catalogue, from the number of times each item was shown.

    coverage: fraction of the catalogue's items that were shown to at least one user.
    novelty: mean of -log2 p over everything shown, in bits; p is the item's fraction of the training
        interactions, with add-one smoothing so that it is defined for cold items.
    popularity: mean number of training interactions of the items shown. Popularity bias is its excess over
        `train_popularity`, the same mean over the training interactions themselves.
    gini, train_gini: Gini coefficient over all items, of what is shown and of the training interactions.
    """
    shown, interactions = max(1, int(shown_N.sum())), max(1, int(train_counts_N.sum()))
    bits_N = -np.log2((train_counts_N + 1) / (train_counts_N.sum() + len(train_counts_N)))
    return {
        "coverage": float((shown_N > 0).mean()),
        "novelty": float(shown_N @ bits_N / shown),
        "popularity": float(shown_N @ train_counts_N / shown),
        "train_popularity": float(train_counts_N @ train_counts_N / interactions),
        "gini": gini(shown_N),
        "train_gini": gini(train_counts_N),
    }
