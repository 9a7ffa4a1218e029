"""Item vectors from who took what together, learned on training interactions alone.

Items within a window of each other's place in a training sequence count as a pair; pairs are weighed by
positive pointwise mutual information (O. Levy and Y. Goldberg, 2014), and a truncated SVD of that matrix
gives the vectors. They are appended to content vectors before quantisation: items then are alike when they
read alike or are taken alike.

Shapes: N items, P pairs, D content width, R rank.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from rqrec.data.sequences import Sequences


def cooccurrences(train: Sequences, items: int, window: int) -> csr_array:
    """How often each two items stand at most `window` places apart, symmetric, [N, N], 0 on the diagonal."""
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
    """max(0, log of p(i, j) / (p(i) p(j))) where items i and j occur together, [N, N] sparse."""
    pairs = counts.tocoo()
    totals = np.asarray(counts.sum(axis=1)).ravel()
    rows, columns = pairs.coords
    pmi = np.log(pairs.data * totals.sum() / (totals[rows] * totals[columns]))
    kept = pmi > 0
    return csr_array((pmi[kept], (rows[kept], columns[kept])), shape=counts.shape)


def collaborative_vectors(
    train: Sequences, items: int, rank: int = 64, window: int = 5, seed: int = 0
) -> NDArray[np.float32]:
    """Vectors of length 1, float32 [N, R]; of zeros for an item that no training pair has.

    `train` are training sequences and nothing else (see `rqrec.data.splits`): validation and test items
    never count. The vectors are U sqrt(S) of the truncated SVD, and the same in every run.
    Raises ValueError where `rank` is not below the number of items, or where no two items pair.
    """
    if not 1 <= rank < items:
        raise ValueError(f"The rank of the collaborative vectors is {rank}; 1 to {items - 1} are allowed.")
    if window < 1:
        raise ValueError(f"The window is {window}; it must be at least 1.")
    pmi = positive_pmi(cooccurrences(train, items, window))
    if not pmi.nnz:
        raise ValueError("No two items of the training sequences go together: bring a longer log.")
    # One thread: the matrices are narrow, and threads that wait for busy cores cost ten times the work.
    with threadpool_limits(1):
        left_NR, values_R = _truncated_svd(pmi, rank, np.random.default_rng(seed))
    vectors_NR = left_NR * np.sqrt(values_R)
    lengths = np.linalg.norm(vectors_NR, axis=1, keepdims=True)
    paired = np.diff(pmi.indptr)[:, None] > 0
    return np.where(paired, vectors_NR / np.maximum(lengths, 1e-12), 0).astype(np.float32)


def _truncated_svd(
    matrix: csr_array, rank: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The left singular vectors [N, R] and values [R] of a symmetric matrix, by random projection.

    N. Halko, P. Martinsson and J. Tropp (2011), algorithm 4.4, with four power iterations.
    """
    width = min(rank + 16, matrix.shape[0])
    basis, _ = np.linalg.qr(matrix @ rng.standard_normal((matrix.shape[0], width)))
    for _ in range(8):
        basis, _ = np.linalg.qr(matrix @ basis)
    left, values, _ = np.linalg.svd((matrix @ basis).T, full_matrices=False)
    return (basis @ left)[:, :rank], values[:rank]


def append_collaborative(
    content_ND: NDArray[np.floating], collaborative_NR: NDArray[np.float32], weight: float = 1.0
) -> NDArray[np.float32]:
    """Content and collaborative vectors side by side, float32 [N, D + R].

    Content rows are brought to a mean length of 1 and collaborative rows have the length `weight`. An item
    without a collaborative vector takes the mean of those of the items that read most like it.
    """
    content = content_ND.astype(np.float32)
    content /= max(float(np.linalg.norm(content, axis=1).mean()), 1e-12)
    return np.hstack([content, weight * _from_neighbours(content, collaborative_NR)])


def _from_neighbours(
    content_ND: NDArray[np.float32], collaborative_NR: NDArray[np.float32], neighbours: int = 10
) -> NDArray[np.float32]:
    known = collaborative_NR.any(axis=1)
    filled = collaborative_NR.copy()
    unit = content_ND / np.maximum(np.linalg.norm(content_ND, axis=1, keepdims=True), 1e-12)
    count = min(neighbours, int(known.sum()))
    unknown = np.flatnonzero(~known)
    for start in range(0, len(unknown) if count else 0, 1024):
        rows = unknown[start : start + 1024]
        likeness = unit[rows] @ unit[known].T
        nearest = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        mean = collaborative_NR[known][nearest].mean(axis=1)
        filled[rows] = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return filled
