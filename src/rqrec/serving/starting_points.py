"""Starting points: a few well-known items of a kind, such as science fiction, as histories to begin with.

Shapes: N items, V values of fields, G kinds, C first codes.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from rqrec.serving.facets import Facets
from rqrec.serving.text_index import TextIndex

COUNT = 3
ITEMS = 4  # of a starting point
MIN_ITEMS, MAX_SHARE = 2 * ITEMS, 1 / 3  # of the catalogue that are of a kind
WORDS = 3  # that name a kind without a name


class StartingPoint(NamedTuple):
    """Items of a kind."""

    label: str
    """Its name; empty if no words are typical of its items."""
    where: str | None
    """The expression that is true of all items of the kind; None if it is none of a field's values."""
    items: tuple[int, ...]
    """Item indices."""


def starting_points(
    facets: Facets,
    words: TextIndex,
    first_codes_N: NDArray[np.integer],
    fame_N: NDArray[np.floating],
    available_N: NDArray[np.bool_],
) -> list[StartingPoint]:
    """Up to `COUNT` kinds of items that differ from one another, each with its best-known items.

    A kind is a value of a field, or else the items with the same first code, named by their typical words. Chosen are
    those of which the model has an idea of its own in what people take: how often a kind's items are taken, times the
    Kullback-Leibler divergence of their first codes from those of all items. That is the kind's part of the mutual
    information of kinds and first codes, so that a kind of few items has to be taken often. An item of several kinds
    counts in part for each. `fame_N`: how often each item was taken, or another measure of how well it is known.
    """
    names: list[tuple[str, str | None]] = [(facet.label, facet.where) for facet in facets.all]
    points = _chosen(facets.has_NV, names, first_codes_N, fame_N, available_N)
    if len(points) < COUNT:
        codes, code_N = np.unique(first_codes_N, return_inverse=True)
        cells = np.ones(len(code_N), dtype=bool), (np.arange(len(code_N)), code_N)
        has_NC = csr_array(cells, shape=(len(code_N), len(codes)))
        labels = [
            ", ".join(words.typical_words(np.flatnonzero(code_N == c), WORDS)) for c in range(len(codes))
        ]
        points = _chosen(has_NC, [(label, None) for label in labels], first_codes_N, fame_N, available_N)
    return points


def _chosen(
    has_NG: csr_array,
    names: list[tuple[str, str | None]],
    first_codes_N: NDArray[np.integer],
    fame_N: NDArray[np.floating],
    available_N: NDArray[np.bool_],
) -> list[StartingPoint]:
    """The best kinds in turn, each without the items of those before: the kinds differ, and so do their items."""
    left_N, points = available_N.copy(), list[StartingPoint]()
    n_kinds_N = np.maximum(has_NG.sum(axis=1), 1)  # an item of many kinds is less typical of each
    code_N = np.unique(first_codes_N, return_inverse=True)[1]
    has_NC = csr_array((np.ones(len(code_N)), (np.arange(len(code_N)), code_N)))
    share_C = has_NC.sum(axis=0) / len(code_N)
    while len(points) < COUNT:
        left_NG = csr_array(has_NG.multiply(left_N[:, None]))
        counts_G, known_N = left_NG.sum(axis=0), np.where(left_N, fame_N / n_kinds_N, 0.0)
        share_GC = (left_NG.astype(np.float64).T @ has_NC).toarray() / np.maximum(counts_G, 1)[:, None]
        divergence_G = (share_GC * np.log(np.maximum(share_GC, 1e-12) / share_C)).sum(axis=1)
        divergence_G -= ((share_GC > 0).sum(axis=1) - 1) / (2 * np.maximum(counts_G, 1))  # of a random choice
        weights_G = (left_NG.astype(np.float64).T @ known_N) * divergence_G.clip(min=0)
        weights_G[(counts_G < MIN_ITEMS) | (counts_G > MAX_SHARE * available_N.sum())] = 0
        if not weights_G.any():
            break
        kind = int(np.argmax(weights_G))
        items = left_NG[:, [kind]].nonzero()[0]
        label, where = names[kind]
        best = items[np.lexsort((items, -known_N[items]))[:ITEMS]]
        points.append(StartingPoint(label, where, tuple(best.tolist())))
        left_N[items] = False
    return points
