"""Items that share their tuple of codes, told apart by moving some of them instead of by one more code.

Shapes: N items, L levels, R items of a group, V codes of the last level.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from rqrec.tokenizer.semantic_ids import tuple_ranks

Costs = Callable[[NDArray[np.int64]], NDArray[np.floating]]


def reassign(codes_NL: NDArray[np.int64], costs: Costs, last_size: int) -> NDArray[np.int64]:
    """Unique codes [N, L]: of the items of a tuple one stays, the others get a free code at the last level.

    `costs(rows)` gives what each last-level code would cost these items, [R, V]. The item that fits a tuple
    best stays (the first of equals); the others of a prefix move to codes that no item of that prefix has,
    at the lowest total cost. Items that share their tuple with none never move. Deterministic.

    Raises ValueError where a prefix has more items than the last level has codes.
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
        # Best fit first, ties by item index: the first of each code stays.
        fit = np.argsort(costs_RV[np.arange(len(rows_R)), last_R], kind="stable")
        stays = np.zeros(len(rows_R), dtype=bool)
        stays[fit[np.unique(last_R[fit], return_index=True)[1]]] = True
        free = np.setdiff1d(np.arange(last_size), last_R[stays])
        moving = np.flatnonzero(~stays)
        chosen_rows, chosen_codes = linear_sum_assignment(costs_RV[np.ix_(moving, free)])
        codes_NL[rows_R[moving[chosen_rows]], -1] = free[chosen_codes]
    return codes_NL
