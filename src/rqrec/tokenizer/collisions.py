"""Collision resolution by reassignment: move colliding items to free codes instead of adding a level.

Shapes: N items, L levels, R items that share a prefix, V codes of the last level.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from rqrec.tokenizer.semantic_ids import Costs, tuple_ranks


def reassign(codes_NL: NDArray[np.int64], costs: Costs, last_size: int) -> NDArray[np.int64]:
    """Make codes [N, L] unique by changing the last code of items that collide.

    Of the items with the same tuple, the one with the lowest cost keeps it (on a tie, the lowest item index).
    The others move to free last-level codes of the same prefix, at the lowest total cost. Items without a
    collision never move. The result is deterministic, int64 [N, L].

    `costs(rows)` returns the cost of each last-level code for these items, [R, V]; `last_size` is V.
    Raises ValueError if a prefix has more items than the last level has codes.
    """
    codes_NL = codes_NL.astype(np.int64, copy=True)
    prefixes_N = tuple_ranks(codes_NL[:, :-1])
    order_N = np.argsort(prefixes_N, kind="stable")
    bounds = np.flatnonzero(np.diff(prefixes_N[order_N])) + 1
    for rows_R in np.split(order_N, bounds):
        last_R = codes_NL[rows_R, -1]
        if len(np.unique(last_R)) == len(rows_R):
            continue
        if len(rows_R) > last_size:
            raise ValueError(
                f"{len(rows_R)} items share the codes {codes_NL[rows_R[0], :-1].tolist()}, but the last level "
                f"has {last_size} codes. Use the deduplication code, a larger codebook or one more level."
            )
        costs_RV = costs(rows_R)
        # Lowest cost first, ties by item index: the first item of each code keeps it.
        by_cost = np.argsort(costs_RV[np.arange(len(rows_R)), last_R], kind="stable")
        keeps = np.zeros(len(rows_R), dtype=bool)
        keeps[by_cost[np.unique(last_R[by_cost], return_index=True)[1]]] = True
        free = np.setdiff1d(np.arange(last_size), last_R[keeps])
        moving = np.flatnonzero(~keeps)
        chosen_rows, chosen_codes = linear_sum_assignment(costs_RV[np.ix_(moving, free)])
        codes_NL[rows_R[moving[chosen_rows]], -1] = free[chosen_codes]
    return codes_NL
