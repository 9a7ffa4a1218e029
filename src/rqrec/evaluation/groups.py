"""Kinds of cases, so that a mean does not hide for whom a recommender works.

Shapes: C cases, N items of the catalogue.
"""

import numpy as np
from numpy.typing import NDArray

Groups = dict[str, NDArray[np.bool_]]  # which cases are of a kind, in the order of a report

FEW = 5  # training interactions up to which an item is all but cold
LENGTHS = (1, 5, 10, 20, 50)  # first history length of each kind
HEAD, TAIL = 0.1, 0.5  # shares of the catalogue's items: the most and the least popular


def by_target(train_counts_C: NDArray[np.int64]) -> Groups:
    """By how often the target occurs in training: never, up to `FEW` times, or more."""
    return {
        "cold: never in training": train_counts_C == 0,
        f"few: 1 to {FEW} times": (train_counts_C > 0) & (train_counts_C <= FEW),
        f"warm: {FEW + 1} times or more": train_counts_C > FEW,
    }


def by_length(lengths_C: NDArray[np.int64]) -> Groups:
    """By how many items the history has."""
    kinds = {}
    for first, following in zip(LENGTHS, (*LENGTHS[1:], None), strict=True):
        if following is None:
            kinds[f"{first} or more"] = lengths_C >= first
        else:
            kinds[f"{first} to {following - 1}"] = (lengths_C >= first) & (lengths_C < following)
    return kinds


def by_popularity(targets_C: NDArray[np.int64], train_counts_N: NDArray[np.int64]) -> Groups:
    """By the target's place among all items, the most popular first (ties by item index)."""
    places_N = np.empty(len(train_counts_N), dtype=np.int64)
    places_N[np.argsort(-train_counts_N, kind="stable")] = np.arange(len(train_counts_N))
    shares_C = places_N[targets_C] / len(train_counts_N)
    return {
        f"head: the most popular {HEAD:.0%} of items": shares_C < HEAD,
        "middle": (shares_C >= HEAD) & (shares_C < 1 - TAIL),
        f"tail: the least popular {TAIL:.0%}": shares_C >= 1 - TAIL,
    }
