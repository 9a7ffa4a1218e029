"""Groups of examples, to show for which targets and histories a recommender works.

Shapes: C examples, N items of the catalogue.
"""

import numpy as np
from numpy.typing import NDArray

Groups = dict[str, NDArray[np.bool_]]  # group name -> mask of its examples, in the order of the report

FEW = 5  # items with up to this many training interactions are nearly cold
LENGTHS = (1, 5, 10, 20, 50)  # the shortest history of each group
HEAD, TAIL = 0.1, 0.5  # fractions of the catalogue: the most and the least popular items


def by_target(train_counts_C: NDArray[np.int64]) -> Groups:
    """Examples by the number of training interactions of the target: none, up to `FEW`, or more."""
    return {
        "cold: never in training": train_counts_C == 0,
        f"few: 1 to {FEW} times": (train_counts_C > 0) & (train_counts_C <= FEW),
        f"warm: {FEW + 1} times or more": train_counts_C > FEW,
    }


def by_length(lengths_C: NDArray[np.int64]) -> Groups:
    """Examples by the number of items in the history."""
    groups = {}
    for shortest, following in zip(LENGTHS, (*LENGTHS[1:], None), strict=True):
        if following is None:
            groups[f"{shortest} or more"] = lengths_C >= shortest
        else:
            groups[f"{shortest} to {following - 1}"] = (lengths_C >= shortest) & (lengths_C < following)
    return groups


def by_popularity(targets_C: NDArray[np.int64], train_counts_N: NDArray[np.int64]) -> Groups:
    """Examples by the popularity rank of the target among all items; ties are ranked by item index."""
    ranks_N = np.empty(len(train_counts_N), dtype=np.int64)
    ranks_N[np.argsort(-train_counts_N, kind="stable")] = np.arange(len(train_counts_N))
    quantiles_C = ranks_N[targets_C] / len(train_counts_N)
    return {
        f"head: the most popular {HEAD:.0%} of items": quantiles_C < HEAD,
        "middle": (quantiles_C >= HEAD) & (quantiles_C < 1 - TAIL),
        f"tail: the least popular {TAIL:.0%}": quantiles_C >= 1 - TAIL,
    }
