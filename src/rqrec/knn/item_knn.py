"""Item-based nearest neighbours: items that often follow the most recent items of a history.

B. Sarwar et al., "Item-based collaborative filtering recommendation algorithms", 2001, with shrinkage and order.
Shapes: N items, B histories, M neighbours of a history.
"""

import numpy as np
import torch
from torch import Tensor

from rqrec.data.sequences import Histories, Sequences
from rqrec.knn.index import KnnIndex

MAX_POPULARITY_SCORE = 1e-6  # below the score of any neighbour, so that popularity only breaks ties


class ItemKnn:
    """Scores an item as a kNN index does: by its summed similarity to the items of a history.

    Items that are not a neighbour of any item of the history rank below the others, by popularity in the training
    sequences, as do all items for an empty history.
    """

    def __init__(self, index: KnnIndex, train: Sequences) -> None:
        self._index = index
        counts_N = np.bincount(train.items, minlength=len(index))
        self._popularity_N = torch.from_numpy(
            (counts_N * (MAX_POPULARITY_SCORE / max(1, counts_N.max()))).astype(np.float32)
        )

    def score_items(self, histories: Histories) -> Tensor:
        """The summed similarity of every item to each history, float32 [B, N]."""
        items_BM, scores_BM = self._index.retrieve(histories, exclude_seen=False)
        scores_BN = self._popularity_N.repeat(len(items_BM), 1)
        return scores_BN.scatter_add_(1, items_BM.clamp(min=0), scores_BM)  # padding adds 0
