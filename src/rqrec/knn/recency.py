"""Histories as item weights that decay with age.

Shapes: B histories, T items of a history, N items of the catalogue.
"""

import numpy as np
from scipy.sparse import csr_array

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories


def weighted_histories(histories: Histories, decay: float, n_items: int) -> csr_array:
    """1 for the last item of a history, times `decay` for each position before it; float32 [B, N] sparse.

    The weights of a repeated item are summed. Raises ValueError unless 0 < decay <= 1.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay is {decay}, but must be above 0 and at most 1 (1: equal weights).")
    items_BT = histories.items_BT
    real_BT = items_BT != PADDING
    rows, positions = np.nonzero(real_BT)
    ages = real_BT.sum(axis=1)[rows] - 1 - positions
    weights = (decay ** ages.astype(np.float64)).astype(np.float32)
    return csr_array((weights, (rows, items_BT[rows, positions])), shape=(len(items_BT), n_items))
