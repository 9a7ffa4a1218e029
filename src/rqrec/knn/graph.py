"""Which items go together, by who took them and when, and by what they are.

Shapes: U users, N items, D width of a vector, P places in sequences, R rows of a block, M neighbours of an item.
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

WINDOW = 10  # places apart at which two items of a sequence still go together
GAP_DECAY = 0.9  # how much a pair counts beside one that is a place nearer
REVERSE_WEIGHT = 0.3  # how much one counts that was taken in the other order
CONTENT_NEIGHBOURS = 20  # of an item, by what it is
PLACES = 1 << 18  # of items whose neighbours are found at once
ROWS = 1024  # items whose likeness to all others is worked out at once


def item_item_knn(train: Sequences, n_items: int, neighbours: int, shrinkage: float) -> csr_array:
    """What goes with each item, float32 [N, N] sparse; row i has the items that users take with item i.

    An item counts GAP_DECAY^(places apart - 1) for each time that it comes after item i in a sequence, at most
    WINDOW places later, and REVERSE_WEIGHT times as much where it comes before. The sum is divided by (sqrt(times
    that one was taken x times that the other was) + `shrinkage`), so that few common users say little. It is the
    cosine of item-based neighbours (B. Sarwar et al., 2001) with the weights of sequential rules (M. Ludewig and
    D. Jannach, arXiv 1803.09587, section 3.1). Each item keeps its `neighbours` likest, ties by item index.
    """
    counts_N = np.bincount(train.items, minlength=n_items)
    by_item_P = np.argsort(train.items, kind="stable")  # the places of item 0, of item 1, ...
    first_N = np.cumsum(counts_N) - counts_N
    user_P = np.repeat(np.arange(len(train)), train.lengths)
    begin_P, end_P = train.offsets[user_P], train.offsets[user_P + 1]
    blocks = []
    for start, stop in _tracked([*_blocks(counts_N)], "Finding which items go together"):
        places_P = by_item_P[first_N[start] : first_N[stop - 1] + counts_N[stop - 1]]
        ones, others, weights = [], [], []
        for gap in range(1, WINDOW + 1):
            after_P = places_P[places_P + gap < end_P[places_P]]
            before_P = places_P[places_P - gap >= begin_P[places_P]]
            ones += [train.items[after_P], train.items[before_P]]
            others += [train.items[after_P + gap], train.items[before_P - gap]]
            weight = GAP_DECAY ** (gap - 1)
            weights += [np.full(len(after_P), weight), np.full(len(before_P), weight * REVERSE_WEIGHT)]
        cells = (np.concatenate(ones) - start, np.concatenate(others))
        together = csr_array((np.concatenate(weights).astype(np.float32), cells), (stop - start, n_items))
        together.sum_duplicates()
        rows, columns = together.tocoo().coords
        taken = np.sqrt(counts_N[rows + start] * counts_N[columns])
        likeness = (together.data / (taken + shrinkage)).astype(np.float32)
        other = rows + start != columns
        shape = (stop - start, n_items)
        blocks.append(_likest_of_rows(rows[other], columns[other], likeness[other], shape, neighbours))
    return csr_array(vstack(blocks))


def content_knn_graph(vectors_ND: NDArray[np.floating], neighbours: int) -> csr_array:
    """The cosine of each item's vector with its likest others', float32 [N, N] sparse; what is below 0 counts as 0.

    Of items that are equally like one, any are kept.
    """
    vectors = torch.from_numpy(np.array(vectors_ND, dtype=np.float32))  # of a read-only file
    unit_ND, n_items = functional.normalize(vectors, dim=1), len(vectors)
    kept = min(neighbours, n_items - 1)
    items, likeness = [], []
    for start in _tracked(range(0, n_items, ROWS), "Finding which items are alike"):
        cosine_RN = unit_ND[start : start + ROWS] @ unit_ND.T
        cosine_RN.diagonal(start).fill_(-torch.inf)  # an item is no neighbour of its own
        best = cosine_RN.topk(kept, dim=1)
        items.append(best.indices)
        likeness.append(best.values.clamp(min=0))
    starts = np.arange(n_items + 1) * kept
    return csr_array(
        (torch.cat(likeness).flatten().numpy(), torch.cat(items).flatten().numpy(), starts), (n_items,) * 2
    )


def _tracked(parts: Sequence[T], description: str) -> Iterable[T]:
    return track(parts, description) if len(parts) > 1 else parts


def _blocks(counts_N: NDArray[np.integer]) -> Iterator[tuple[int, int]]:
    """Ranges of items that together stand in at most PLACES places; one that stands in more is alone."""
    start, total = 0, 0
    for item, count in enumerate(counts_N.tolist()):
        if item > start and total + count > PLACES:
            yield start, item
            start, total = item, 0
        total += count
    yield start, len(counts_N)


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
