"""Item-based nearest neighbours: what goes with what the user took last, and soon after it.

B. Sarwar et al., "Item-based collaborative filtering recommendation algorithms", 2001, with shrinkage and the order.
Shapes: N items, D width of an embedding, B histories.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rqrec.data.sequences import Histories, Sequences
from rqrec.knn.graph import CONTENT_NEIGHBOURS, content_knn_graph, item_item_knn
from rqrec.knn.recency import weighted_histories

LEAST = 1e-6  # of the score of the most popular item: below what any neighbour adds


class ItemKnn:
    """Scores an item by its likeness to each item of the history, the last ones weighing most.

    Likeness is how often and how soon one item follows the other (`rqrec.knn.graph.item_item_knn`), with
    a `shrinkage` that makes few common users count for little. Each item keeps its `neighbours` likest.
    An item of the history weighs `decay` times as much as the one after it. What has no neighbour in the history
    follows by popularity, and an empty history gets popularity alone. With `contents_ND`, the items' embeddings,
    `content` times their cosine is added, for the CONTENT_NEIGHBOURS likest of each item.

    Raises ValueError on settings that are out of range.
    """

    def __init__(
        self,
        train: Sequences,
        n_items: int,
        *,
        neighbours: int = 200,
        shrinkage: float = 20.0,
        decay: float = 0.6,
        contents_ND: NDArray[np.floating] | None = None,
        content: float = 0.03,
    ) -> None:
        if neighbours < 1 or shrinkage < 0:
            raise ValueError(
                f"neighbours is {neighbours}, at least 1 is needed; shrinkage is {shrinkage}, at least 0."
            )
        self._decay = decay
        self._likeness_NN = item_item_knn(train, n_items, neighbours, shrinkage)
        if contents_ND is not None:
            self._likeness_NN += content * content_knn_graph(contents_ND, CONTENT_NEIGHBOURS)
        counts_N = np.bincount(train.items, minlength=n_items)
        self._popularity_N = (counts_N * (LEAST / max(1, counts_N.max()))).astype(np.float32)

    def score_items(self, histories: Histories) -> Tensor:
        """A sum of similarities of every item for each history, float32 [B, N]."""
        weights_BN = weighted_histories(histories, self._decay, len(self._popularity_N))
        return torch.from_numpy((weights_BN @ self._likeness_NN).toarray() + self._popularity_N)
