"""Item-based nearest neighbours: what goes with what the user took last.

B. Sarwar et al., "Item-based collaborative filtering recommendation algorithms", 2001, with shrinkage.
Shapes: U users, N items, R rows of a block, B histories.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from rqrec.baselines.recency import weighted_histories
from rqrec.data.sequences import Histories, Sequences
from rqrec.retrieval.beam_search import Ranked, rank_scores

ROWS = 1024  # items whose neighbours are found at once
LEAST = 1e-6  # of the score of the most popular item: below what any neighbour adds


class ItemKnn:
    """Scores an item by its likeness to each item of the history, the last ones weighing most.

    Likeness of two items is the cosine of their users: users of both / (sqrt(users of one x of the other) +
    `shrinkage`), so that few common users count for little. Each item keeps its `neighbours` likest (ties by
    item index). An item of the history weighs `decay` times as much as the one after it. What has no
    neighbour in the history follows by popularity, and an empty history gets popularity alone.

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
    ) -> None:
        if neighbours < 1 or shrinkage < 0:
            raise ValueError(
                f"neighbours is {neighbours}, at least 1 is needed; shrinkage is {shrinkage}, at least 0."
            )
        self._decay = decay
        self._likeness_NN = likest_items(train, n_items, neighbours, shrinkage)
        counts_N = np.bincount(train.items, minlength=n_items)
        self._popularity_N = (counts_N * (LEAST / max(1, counts_N.max()))).astype(np.float32)

    def recommend(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> Ranked:
        """The k best items for each history; a score is a sum of likenesses."""
        weights_BN = weighted_histories(histories, self._decay, len(self._popularity_N))
        scores_BN = torch.from_numpy((weights_BN @ self._likeness_NN).toarray() + self._popularity_N)
        excluded_BX = torch.from_numpy(histories.items_BT) if exclude_seen else None
        return rank_scores(scores_BN, k, excluded_BX=excluded_BX)


def likest_items(train: Sequences, n_items: int, neighbours: int, shrinkage: float) -> csr_array:
    """The likeness of each item to its likest others, float32 [N, N] sparse; row i has item i's neighbours."""
    users = np.repeat(np.arange(len(train)), train.lengths)
    taken_UN = csr_array((np.ones(len(users), np.float32), (users, train.items)), (len(train), n_items))
    taken_UN.data[:] = 1  # an item taken twice counts once
    users_N = np.bincount(taken_UN.indices, minlength=n_items).astype(np.float32)
    taken_NU = csr_array(taken_UN.T)
    blocks = []
    for start in range(0, n_items, ROWS):
        common = (taken_NU[start : start + ROWS] @ taken_UN).tocoo()
        rows, columns = common.coords
        likeness = common.data / (np.sqrt(users_N[rows + start] * users_N[columns]) + shrinkage)
        other = rows + start != columns
        blocks.append(_likest_of_rows(rows[other], columns[other], likeness[other], common.shape, neighbours))
    return csr_array(vstack(blocks))


def _likest_of_rows(
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
    likeness: NDArray[np.float32],
    shape: tuple[int, int],
    neighbours: int,
) -> csr_array:
    order = np.lexsort((columns, -likeness, rows))
    rows, columns, likeness = rows[order], columns[order], likeness[order]
    counts_R = np.bincount(rows, minlength=shape[0])
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts_R) - counts_R, counts_R)
    kept = places < neighbours
    return csr_array((likeness[kept], (rows[kept], columns[kept])), shape=shape)
