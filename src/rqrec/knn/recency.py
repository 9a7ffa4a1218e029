"""Histories as weights of items, the last ones weighing most.

Shapes: B histories, T items of a history, N items of the catalogue.
"""

import numpy as np
from scipy.sparse import csr_array

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories


def weighted_histories(histories: Histories, decay: float, n_items: int) -> csr_array:
    """1 for a history's last item, and `decay` times as much for each one before it; float32 [B, N] sparse.

    An item that is there twice has the sum. Raises ValueError where `decay` is not above 0 and at most 1.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay is {decay}; it must be above 0 and at most 1 (all items weigh as much).")
    items_BT = histories.items_BT
    real_BT = items_BT != PADDING
    rows, places = np.nonzero(real_BT)
    ages = real_BT.sum(axis=1)[rows] - 1 - places
    weights = (decay ** ages.astype(np.float64)).astype(np.float32)
    return csr_array((weights, (rows, items_BT[rows, places])), shape=(len(items_BT), n_items))
