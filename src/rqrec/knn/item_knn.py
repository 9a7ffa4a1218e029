"""Item-based nearest neighbours: items that often follow the most recent items of a history.

B. Sarwar et al., "Item-based collaborative filtering recommendation algorithms", 2001, with shrinkage and order.
Shapes: N items, D width of an embedding, B histories.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rqrec.data.sequences import Histories, Sequences
from rqrec.knn.graph import CONTENT_NEIGHBOURS, content_knn_graph, item_item_knn
from rqrec.knn.recency import weighted_histories

MAX_POPULARITY_SCORE = 1e-6  # below the score of any neighbour, so that popularity only breaks ties


class ItemKnn:
    """Scores an item by the weighted sum of its similarities to the items of the history.

    The weight of an item of the history is `decay` times that of the item after it. Similarity is how often and how
    soon one item follows another (`rqrec.knn.graph.item_item_knn`); `shrinkage` lowers similarities based on few
    interactions. Each item keeps its `neighbours` most similar items. Items that are not a neighbour of any item of
    the history rank below the others, by popularity, as do all items for an empty history. With `content_ND`, the
    items' content embeddings, `content_weight` times the cosine is added for each item's CONTENT_NEIGHBOURS most
    similar items.

    Raises ValueError on settings out of range.
    """

    def __init__(
        self,
        train: Sequences,
        n_items: int,
        *,
        neighbours: int = 200,
        shrinkage: float = 20.0,
        decay: float = 0.6,
        content_ND: NDArray[np.floating] | None = None,
        content_weight: float = 0.03,
    ) -> None:
        if neighbours < 1 or shrinkage < 0:
            raise ValueError(
                f"neighbours is {neighbours}, but must be at least 1, and shrinkage is {shrinkage}, but must be at "
                f"least 0."
            )
        self._decay = decay
        self._similarity_NN = item_item_knn(train, n_items, neighbours, shrinkage)
        if content_ND is not None:
            self._similarity_NN += content_weight * content_knn_graph(content_ND, CONTENT_NEIGHBOURS)
        counts_N = np.bincount(train.items, minlength=n_items)
        self._popularity_N = (counts_N * (MAX_POPULARITY_SCORE / max(1, counts_N.max()))).astype(np.float32)

    def score_items(self, histories: Histories) -> Tensor:
        """The summed similarity of every item to each history, float32 [B, N]."""
        weights_BN = weighted_histories(histories, self._decay, len(self._popularity_N))
        return torch.from_numpy((weights_BN @ self._similarity_NN).toarray() + self._popularity_N)
