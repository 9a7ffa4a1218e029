"""Content-based nearest neighbours: an item needs no interactions, so cold items are recommended too.

Shapes: N items, D width of an embedding, B histories.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rqrec.data.sequences import Histories
from rqrec.knn.recency import weighted_histories

DECAY = 0.7  # weight of an item of the history relative to the item after it


class ContentKnn:
    """Ranks items by the cosine of their embedding with the history's profile.

    The profile is the weighted sum of the unit embeddings of the history's items; the weight of an item is `DECAY`
    times that of the item after it. For an empty history every item scores 0, so the order is that of the indices.
    """

    def __init__(self, vectors_ND: NDArray[np.floating]) -> None:
        vectors = torch.from_numpy(
            np.array(vectors_ND, dtype=np.float32)
        )  # a copy: the file may be read-only
        self._unit_ND = functional.normalize(vectors, dim=1)

    def score_items(self, histories: Histories) -> Tensor:
        """The cosine of every item for each history, float32 [B, N]."""
        weights_BN = weighted_histories(histories, DECAY, len(self._unit_ND))
        profiles_BD = torch.from_numpy(weights_BN @ self._unit_ND.numpy())
        return functional.normalize(profiles_BD, dim=1) @ self._unit_ND.T
