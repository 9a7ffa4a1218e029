"""The vectors of a large matrix that are most similar to a few others, without a matrix of all similarities.

Shapes: M queries, Q of them at a time, N vectors, C dimensions, K nearest, B rows of a block.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS, BLOCK_CELLS = 16_384, 1 << 24  # vectors, and cosines (64 MB), that are held at once


class Nearest(NamedTuple):
    """The most similar vectors of each query in descending order of cosine, ties by index."""

    rows_MK: NDArray[np.int64]
    """Rows of the matrix."""
    cosines_MK: NDArray[np.float32]
    """float32."""


def unit(vectors_NC: NDArray[np.floating]) -> NDArray[np.float32]:
    """Vectors of length 1, float32; zero vectors stay zero."""
    vectors = vectors_NC.astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))


def nearest(queries_MC: NDArray[np.floating], vectors_NC: NDArray[np.floating], count: int) -> Nearest:
    """The `count` vectors with the largest cosines with each query, or all N if there are fewer.

    `vectors_NC` is read in blocks, so it may be memory-mapped.
    """
    queries, kept = unit(queries_MC), min(count, len(vectors_NC))
    rows_MK = np.zeros((len(queries), kept), dtype=np.int64)
    cosines_MK = np.full((len(queries), kept), -np.inf, dtype=np.float32)
    for start in range(0, len(vectors_NC), BLOCK_ROWS):
        block_BC = unit(vectors_NC[start : start + BLOCK_ROWS])
        step = max(1, BLOCK_CELLS // len(block_BC))
        for first in range(0, len(queries), step):
            part = slice(first, first + step)
            cosines_QB = queries[part] @ block_BC.T
            _merge(rows_MK[part], cosines_MK[part], cosines_QB, start)
    return Nearest(rows_MK, cosines_MK)


def _merge(
    rows_QK: NDArray[np.int64], best_QK: NDArray[np.float32], cosines_QB: NDArray[np.float32], start: int
) -> None:
    """Put the cosines of a block, whose first row is `start`, among the best so far."""
    kept = best_QK.shape[1]
    if cosines_QB.shape[1] > kept:  # only the best of the block can be among the best
        last_Q1 = np.partition(cosines_QB, -kept, axis=1)[:, -kept, None] if start == 0 else best_QK[:, -1:]
        queries, columns = np.nonzero((cosines_QB >= last_Q1) if start == 0 else (cosines_QB > last_Q1))
    else:
        queries, columns = np.nonzero(cosines_QB > -np.inf)
    values = np.concatenate([best_QK.ravel(), cosines_QB[queries, columns]])
    rows = np.concatenate([rows_QK.ravel(), columns + start])
    owners = np.concatenate([np.repeat(np.arange(len(best_QK)), kept), queries])
    order = np.lexsort((rows, -values, owners))
    owners = owners[order]
    ranks = np.arange(len(owners)) - np.searchsorted(owners, owners)
    chosen = order[ranks < kept]
    best_QK[:], rows_QK[:] = values[chosen].reshape(best_QK.shape), rows[chosen].reshape(rows_QK.shape)
