"""Which items are alike by who took them.

Shapes: U users, N items, R rows of a block.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from rqrec.data.sequences import Sequences

ROWS = 1024  # items whose neighbours are found at once


def likest_items(train: Sequences, n_items: int, neighbours: int, shrinkage: float) -> csr_array:
    """The likeness of each item to its likest others, float32 [N, N] sparse; row i has item i's neighbours.

    Likeness of two items is the cosine of their users: users of both / (sqrt(users of one x of the other) +
    `shrinkage`), so that few common users count for little (B. Sarwar et al., 2001). Each item keeps its
    `neighbours` likest, ties by item index.
    """
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
