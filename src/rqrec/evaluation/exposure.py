"""What a recommender shows, whoever sees it: coverage, novelty, popularity.

All follow from how often each item was recommended, so one count an item is kept and no list.
Shapes: N items of the catalogue.
"""

import numpy as np
from numpy.typing import NDArray


def gini(counts_N: NDArray[np.integer]) -> float:
    """How unequally items share the counts: 0 where all have as many, towards 1 where one has all."""
    ascending = np.sort(counts_N).astype(np.float64)
    places = np.arange(1, len(ascending) + 1)
    total = ascending.sum()
    return float((2 * places - len(ascending) - 1) @ ascending / (len(ascending) * total)) if total else 0.0


def exposure(shown_N: NDArray[np.int64], train_counts_N: NDArray[np.int64]) -> dict[str, float]:
    """How a recommender spreads over the catalogue, from how often it showed each item.

    coverage: share of the catalogue's items that were shown to somebody.
    novelty: mean of -log2 p over all that was shown, in bits; p is an item's share of training
        interactions, each item counted once more than it occurs, so that a cold one has a value.
    popularity: mean training interactions of what was shown; popularity bias is how far it is above
        `train_popularity`, the same of the interactions themselves.
    gini, train_gini: of what was shown, and of training interactions, over all items.
    """
    shown, taken = max(1, int(shown_N.sum())), max(1, int(train_counts_N.sum()))
    bits_N = -np.log2((train_counts_N + 1) / (train_counts_N.sum() + len(train_counts_N)))
    return {
        "coverage": float((shown_N > 0).mean()),
        "novelty": float(shown_N @ bits_N / shown),
        "popularity": float(shown_N @ train_counts_N / shown),
        "train_popularity": float(train_counts_N @ train_counts_N / taken),
        "gini": gini(shown_N),
        "train_gini": gini(train_counts_N),
    }
