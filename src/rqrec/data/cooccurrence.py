"""Collaborative item vectors: learned from co-occurrence in training interactions.

Two items co-occur if they are at most `window` positions apart in a user's training sequence. Co-occurrence
counts are turned into positive pointwise mutual information (O. Levy and Y. Goldberg, 2014), and a truncated
SVD of that matrix gives the vectors. Appended to content vectors before quantisation, they make items similar
that have similar content or similar users.

Shapes: N items, D dimensions of the content vectors, R rank.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from rqrec.data.nearest import nearest
from rqrec.data.sequences import Sequences

SIMILAR = 10  # items whose mean an item without interactions gets
BLOCK_CELLS = 1 << 22  # similarities that are computed and sorted at once: 16 bytes each


def cooccurrence_counts(train: Sequences, items: int, window: int) -> csr_array:
    """Number of times two items are at most `window` positions apart, symmetric [N, N], 0 on the diagonal."""
    users = np.repeat(np.arange(len(train)), train.lengths)
    counts = csr_array((items, items), dtype=np.float64)
    for distance in range(1, window + 1):
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
    train: Sequences, items: int, rank: int = 64, window: int = 5, seed: int = 0
) -> NDArray[np.float32]:
    """Vectors of unit length, float32 [N, R]; zero for items that co-occur with no other item.

    The vectors are the normalised rows of U sqrt(S) of the truncated SVD, deterministic for a `seed`. `train`
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
        left_NR, values_R = _truncated_svd(pmi, rank, np.random.default_rng(seed))
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
    found = nearest(content_MD, vectors_NX[:, :width], SIMILAR)
    collaborative_MKR = vectors_NX[found.rows_MK.ravel(), width:].astype(np.float32)
    mean_MR = collaborative_MKR.reshape(*found.rows_MK.shape, -1).mean(axis=1)
    weight = np.linalg.norm(collaborative_MKR, axis=1).max(initial=0)  # the length of all of them
    return weight * mean_MR / np.maximum(np.linalg.norm(mean_MR, axis=1, keepdims=True), 1e-12)


def _impute_from_neighbours(
    content_ND: NDArray[np.float32], collaborative_NR: NDArray[np.float32], neighbours: int = SIMILAR
) -> NDArray[np.float32]:
    """Replace zero rows by the mean vector of the nearest items by content (cosine), scaled to unit length."""
    has_vector = collaborative_NR.any(axis=1)
    filled = collaborative_NR.copy()
    unit = content_ND / np.maximum(np.linalg.norm(content_ND, axis=1, keepdims=True), 1e-12)
    count = min(neighbours, int(has_vector.sum()))
    missing = np.flatnonzero(~has_vector)
    known_ND, vectors_NR = unit[has_vector], collaborative_NR[has_vector]
    block = max(1, min(1024, BLOCK_CELLS // max(1, len(known_ND))))
    for start in range(0, len(missing) if count else 0, block):
        rows = missing[start : start + block]
        similarity = unit[rows] @ known_ND.T
        nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        mean = vectors_NR[nearest].mean(axis=1)
        filled[rows] = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return filled
