"""How much each item of a history weighs.

Shapes: B histories, T items of a history.
"""

import numpy as np
from numpy.typing import NDArray

from rqrec.data.ids import PADDING


def recency_weights(items_BT: NDArray[np.int64], decay: float) -> NDArray[np.float32]:
    """1 for the last item, and `decay` times as much for each one before it; 0 at padding; float32 [B, T].

    Raises ValueError where `decay` is not above 0 and at most 1.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay is {decay}; it must be above 0 and at most 1 (all items weigh as much).")
    real_BT = items_BT != PADDING
    ages_BT = real_BT.sum(axis=1, keepdims=True) - 1 - np.arange(items_BT.shape[1])
    return np.where(real_BT, decay ** ages_BT.clip(min=0).astype(np.float64), 0).astype(np.float32)
