"""Collaborative item vectors: learned from co-occurrence in training interactions.

Two items co-occur if they are at most `window` positions apart in a user's training sequence. Co-occurrence
counts are turned into positive pointwise mutual information (O. Levy and Y. Goldberg, 2014), and a truncated
SVD of that matrix gives the vectors. Appended to content vectors before quantisation, they make items similar
that have similar content or similar users.

Shapes: N items, M new items, D dimensions of the content vectors, R rank, X = D + R, K most similar items.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from rqrec.data.nearest import nearest
from rqrec.data.sequences import Sequences

SEED = 0  # of the randomised SVD
SIMILAR = 10  # items whose mean an item without interactions gets


def cooccurrence_counts(train: Sequences, items: int, window: int) -> csr_array:
    """Number of times two items are at most `window` positions apart, symmetric [N, N], 0 on the diagonal."""
    users = np.repeat(np.arange(len(train)), train.lengths)
    counts = csr_array((items, items), dtype=np.float64)
    for distance in range(1, min(window, int(train.lengths.max(initial=1)) - 1) + 1):
        same_user = users[:-distance] == users[distance:]
        left, right = train.items[:-distance][same_user], train.items[distance:][same_user]
        apart = left != right
        ones = np.ones(int(apart.sum()))
        counts = counts + csr_array((ones, (left[apart], right[apart])), shape=counts.shape)
    return csr_array(counts + counts.T)


def positive_pmi(counts: csr_array) -> csr_array:
    """max(0, log(p(i, j) / (p(i) p(j)))) of items i and j that co-occur, sparse [N, N]."""
    pairs = counts.tocoo()
    totals = np.asarray(counts.sum(axis=1)).ravel()
    rows, columns = pairs.coords
    pmi = np.log(pairs.data * totals.sum() / (totals[rows] * totals[columns]))
    kept = pmi > 0
    return csr_array((pmi[kept], (rows[kept], columns[kept])), shape=counts.shape)


def collaborative_vectors(
    train: Sequences, items: int, rank: int = 64, window: int = 5
) -> NDArray[np.float32]:
    """Vectors of unit length, float32 [N, R]; zero for items that co-occur with no other item.

    The vectors are the normalised rows of U sqrt(S) of the truncated SVD, always the same ones. `train`
    must be training sequences only (see `rqrec.data.splits`), without validation and test interactions.
    Raises ValueError if `rank` is not from 1 to N - 1, if `window` is below 1, or if no items co-occur.
    """
    if not 1 <= rank < items:
        raise ValueError(
            f"The rank of the collaborative vectors is {rank}; it must be from 1 to {items - 1}."
        )
    if window < 1:
        raise ValueError(f"The window is {window}; it must be at least 1.")
    pmi = positive_pmi(cooccurrence_counts(train, items, window))
    if not pmi.nnz:
        raise ValueError(
            "No two items co-occur in the training sequences: a longer log or a larger window is required."
        )
    # One thread: the matrices are narrow, and on busy cores several threads take up to ten times as long.
    with threadpool_limits(1):
        left_NR, values_R = _truncated_svd(pmi, rank, np.random.default_rng(SEED))
    vectors_NR = left_NR * np.sqrt(values_R)
    lengths = np.linalg.norm(vectors_NR, axis=1, keepdims=True)
    has_pairs = np.diff(pmi.indptr)[:, None] > 0
    return np.where(has_pairs, vectors_NR / np.maximum(lengths, 1e-12), 0).astype(np.float32)


def _truncated_svd(
    matrix: csr_array, rank: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Left singular vectors [N, R] and singular values [R] of a symmetric matrix, by randomised SVD.

    N. Halko, P. Martinsson and J. Tropp (2011), algorithm 4.4, with four power iterations.
    """
    width = min(rank + 16, matrix.shape[0])
    basis, _ = np.linalg.qr(matrix @ rng.standard_normal((matrix.shape[0], width)))
    for _ in range(8):
        basis, _ = np.linalg.qr(matrix @ basis)
    left, values, _ = np.linalg.svd((matrix @ basis).T, full_matrices=False)
    return (basis @ left)[:, :rank], values[:rank]


def mean_length(content_ND: NDArray[np.floating]) -> float:
    """The mean length of vectors."""
    return max(float(np.linalg.norm(content_ND.astype(np.float32), axis=1).mean()), 1e-12)


def append_collaborative(
    content_ND: NDArray[np.floating], collaborative_NR: NDArray[np.float32], weight: float = 1.0
) -> NDArray[np.float32]:
    """Concatenate content and collaborative vectors, float32 [N, D + R].

    Content vectors are scaled to a mean length of 1, collaborative vectors to the length `weight`. An item
    without a collaborative vector gets the mean vector of the items with the most similar content.
    """
    content = content_ND.astype(np.float32)
    content /= mean_length(content)
    return np.hstack([content, weight * _impute_from_neighbours(content, collaborative_NR)])


def from_similar_items(
    content_MD: NDArray[np.float32], vectors_NX: NDArray[np.floating], width: int
) -> NDArray[np.float32]:
    """Collaborative vectors [M, R] of new items: as `append_collaborative` gives them to items without any.

    `vectors_NX` [N, D + R] are the whole vectors of the other items, of which the first `width` = D are content.
    """
    content_ND, collaborative_NR = vectors_NX[:, :width], vectors_NX[:, width:]
    rows_MK = nearest(content_MD, content_ND, SIMILAR).rows_MK
    lengths = np.linalg.norm(collaborative_NR[np.unique(rows_MK)].astype(np.float32), axis=1)
    return lengths.max(initial=0) * _mean_directions(collaborative_NR, rows_MK)  # all of them are as long


def _impute_from_neighbours(
    content_ND: NDArray[np.float32], collaborative_NR: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Replace zero rows by the mean vector of the nearest items by content (cosine), scaled to unit length."""
    has_vector = collaborative_NR.any(axis=1)
    if has_vector.all() or not has_vector.any():
        return collaborative_NR
    filled = collaborative_NR.copy()
    known_NR = collaborative_NR[has_vector]
    rows_MK = nearest(content_ND[~has_vector], content_ND[has_vector], SIMILAR).rows_MK
    filled[~has_vector] = _mean_directions(known_NR, rows_MK)
    return filled


def _mean_directions(vectors_NR: NDArray[np.floating], rows_MK: NDArray[np.int64]) -> NDArray[np.float32]:
    """The mean of K of the vectors for each of M items, scaled to length 1, float32 [M, R]."""
    total_MR = np.zeros((len(rows_MK), vectors_NR.shape[1]), dtype=np.float32)
    for rows_M in rows_MK.T:  # one at a time: all of them at once would be K times as large
        total_MR += vectors_NR[rows_M]
    return total_MR / np.maximum(np.linalg.norm(total_MR, axis=1, keepdims=True), np.float32(1e-12))
