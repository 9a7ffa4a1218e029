"""Sparse graphs of each item's nearest neighbours, by co-occurrence and by content.

Shapes: N items, D width of a vector, P positions in sequences, R rows of a block.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from torch.nn import functional

from rqrec.core.progress import track
from rqrec.data.sequences import Sequences

T = TypeVar("T")

WINDOW = 10  # largest distance, in positions, at which two items of a sequence count as a pair
GAP_DECAY = 0.9  # weight of a pair relative to a pair that is one position closer
REVERSE_WEIGHT = 0.3  # weight of a pair in reverse order relative to a pair in order
CONTENT_NEIGHBOURS = 20  # neighbours of each item by content
BLOCK_POSITIONS = 1 << 16  # positions whose pairs are counted at once
BLOCK_ROWS, BLOCK_CELLS = (
    1024,
    1 << 24,
)  # items, and cosines with all others (64 MB), that are computed at once


def item_item_knn(train: Sequences, n_items: int, neighbours: int, shrinkage: float) -> csr_array:
    """The similarity of each item (row) to the items that users interact with after it, or shortly before.

    Returns a sparse float32 [N, N] with the `neighbours` most similar items of each row at most; ties by item index.
    An item that users take again is among its own neighbours.

    The similarity of item i to item j is the weighted number of times that j occurs within WINDOW positions of i,
    divided by sqrt(count of i x count of j) + `shrinkage`, which lowers similarities based on few interactions. An
    occurrence after i weighs GAP_DECAY^(distance - 1), one before i REVERSE_WEIGHT times as much. This is the cosine
    of item-based neighbours (B. Sarwar et al., 2001) with the weights of sequential rules (M. Ludewig and D. Jannach,
    arXiv 1803.09587, section 3.1).
    """
    counts_N = np.bincount(train.items, minlength=n_items)
    by_item_P = np.argsort(train.items, kind="stable")  # the positions of item 0, of item 1, ...
    first_N = np.cumsum(counts_N) - counts_N
    user_P = np.repeat(np.arange(len(train)), train.lengths)
    begin_P, end_P = train.offsets[user_P], train.offsets[user_P + 1]
    blocks = []
    for start, stop in _tracked([*_blocks(counts_N)], "Finding item neighbours by co-occurrence"):
        positions_P = by_item_P[first_N[start] : first_N[stop - 1] + counts_N[stop - 1]]
        ones, others, weights = [], [], []
        for gap in range(1, WINDOW + 1):
            after_P = positions_P[positions_P + gap < end_P[positions_P]]
            before_P = positions_P[positions_P - gap >= begin_P[positions_P]]
            ones += [train.items[after_P], train.items[before_P]]
            others += [train.items[after_P + gap], train.items[before_P - gap]]
            weight = GAP_DECAY ** (gap - 1)
            weights += [np.full(len(after_P), weight), np.full(len(before_P), weight * REVERSE_WEIGHT)]
        cells = (np.concatenate(ones) - start, np.concatenate(others))
        pairs = csr_array((np.concatenate(weights).astype(np.float32), cells), (stop - start, n_items))
        pairs.sum_duplicates()
        rows, columns = pairs.tocoo().coords
        norms = np.sqrt(counts_N[rows + start] * counts_N[columns])
        similarity = (pairs.data / (norms + shrinkage)).astype(np.float32)
        blocks.append(_top_of_rows(rows, columns, similarity, (stop - start, n_items), neighbours))
    return csr_array(vstack(blocks))


def content_knn_graph(vectors_ND: NDArray[np.floating], neighbours: int) -> csr_array:
    """The cosine of each item's vector with those of its `neighbours` most similar items, float32 [N, N] sparse.

    Negative cosines are stored as 0. The choice between equally similar items is arbitrary.
    """
    vectors = torch.from_numpy(np.array(vectors_ND, dtype=np.float32))  # a copy: the file may be read-only
    unit_ND, n_items = functional.normalize(vectors, dim=1, out=vectors), len(vectors)
    kept = min(neighbours, n_items - 1)
    items, similarity = [], []
    rows = max(1, min(BLOCK_ROWS, BLOCK_CELLS // n_items))
    for start in _tracked(range(0, n_items, rows), "Finding item neighbours by content"):
        cosine_RN = unit_ND[start : start + rows] @ unit_ND.T
        cosine_RN.diagonal(start).fill_(-torch.inf)  # an item is not its own neighbour
        best = cosine_RN.topk(kept, dim=1)
        items.append(best.indices)
        similarity.append(best.values.clamp(min=0))
    starts = np.arange(n_items + 1) * kept
    return csr_array(
        (torch.cat(similarity).flatten().numpy(), torch.cat(items).flatten().numpy(), starts), (n_items,) * 2
    )


def _tracked(parts: Sequence[T], description: str) -> Iterable[T]:
    return track(parts, description) if len(parts) > 1 else parts


def _blocks(counts_N: NDArray[np.integer]) -> Iterator[tuple[int, int]]:
    """Ranges of items with at most BLOCK_POSITIONS positions in total; an item with more is a block by itself."""
    start, total = 0, 0
    for item, count in enumerate(counts_N.tolist()):
        if item > start and total + count > BLOCK_POSITIONS:
            yield start, item
            start, total = item, 0
        total += count
    yield start, len(counts_N)


def _top_of_rows(
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
    similarity: NDArray[np.float32],
    shape: tuple[int, int],
    neighbours: int,
) -> csr_array:
    order = np.lexsort((columns, -similarity, rows))
    rows, columns, similarity = rows[order], columns[order], similarity[order]
    counts_R = np.bincount(rows, minlength=shape[0])
    ranks = np.arange(len(rows)) - np.repeat(np.cumsum(counts_R) - counts_R, counts_R)
    kept = ranks < neighbours
    return csr_array((similarity[kept], (rows[kept], columns[kept])), shape=shape)
