"""What reads most like what the user took last; it needs no interaction of an item, so cold ones come too.

Shapes: N items, D width of an embedding, B histories.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rqrec.data.sequences import Histories
from rqrec.knn.recency import weighted_histories


class ContentKnn:
    """Ranks items by the cosine of their embedding to the history's: a mean of its items' directions.

    An item of the history weighs `decay` times as much as the one after it. An empty history is like no item:
    all score 0, and item index decides.
    """

    def __init__(self, vectors_ND: NDArray[np.floating], *, decay: float = 0.7) -> None:
        vectors = torch.from_numpy(np.array(vectors_ND, dtype=np.float32))  # of a read-only file
        self._decay, self._unit_ND = decay, functional.normalize(vectors, dim=1)

    def score_items(self, histories: Histories) -> Tensor:
        """The cosine of every item for each history, float32 [B, N]."""
        weights_BN = weighted_histories(histories, self._decay, len(self._unit_ND))
        profiles_BD = torch.from_numpy(weights_BN @ self._unit_ND.numpy())
        return functional.normalize(profiles_BD, dim=1) @ self._unit_ND.T
