"""What a recommender answers with: items with their ids, titles and semantic IDs.

Shapes: B histories, K items of a list, M items, N items of the catalogue, L levels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import islice, repeat
from typing import overload

import numpy as np
from numpy.typing import NDArray

from rqrec.data.ids import PADDING, IdMap
from rqrec.retrieval.ranking import Ranked


@dataclass(frozen=True)
class Recommendation:
    """A recommended item; `semantic_id` is its codes, `score` its log-probability, plus its boosts (see `Rules`).

    Of a model that joins several experts, the probability is that among their candidates (see
    `rqrec.retrieval.ensemble`). `experts`: the item's log-probability for each expert by itself, minus infinity if
    it is impossible.
    """

    item_id: str
    title: str
    score: float
    semantic_id: tuple[int, ...]
    experts: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line, for notebooks."""
        return _line(self)


@dataclass(frozen=True)
class Recommendations(Sequence[Recommendation]):
    """The recommendations for one history, most probable first: a sequence of `Recommendation`.

    `n_allowed`: number of items that could have been recommended. Fewer than k are returned if it is below k, if
    `Rules.max_per` leaves too few, or if the neighbours are asked alone and know fewer. `skipped`: unknown ids of the
    request that were skipped.
    """

    items: tuple[Recommendation, ...]
    n_allowed: int
    skipped: tuple[str, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Recommendation: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Recommendation, ...]: ...
    def __getitem__(self, index: int | slice) -> Recommendation | tuple[Recommendation, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        """One item per line, for notebooks."""
        lines = (
            f"{rank:4d}. {item.title or item.item_id}  {item.score:.3f}  ({item.item_id})"
            for rank, item in enumerate(self, start=1)
        )
        return "\n".join((f"{len(self)} of {self.n_allowed:,} items, with log-probabilities:", *lines))

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        rows = "".join(
            f"<tr><td>{rank}<td style='text-align:left'>{escape(item.title or item.item_id)}<td>{item.score:.3f}"
            f"<td>{'-'.join(map(str, item.semantic_id))}<td>{escape(item.item_id)}"
            for rank, item in enumerate(self, start=1)
        )
        head = "<tr><th><th style='text-align:left'>item<th>log-probability<th>codes<th>id"
        return f"<table>{head}{rows}</table>"


@dataclass(frozen=True)
class SimilarItem:
    """A similar item; `score`: length of the shared prefix of codes, plus closeness from 0 to 1."""

    item_id: str
    title: str
    score: float
    semantic_id: tuple[int, ...]

    def __repr__(self) -> str:
        """One line, for notebooks."""
        return _line(self)


@dataclass(frozen=True)
class Answers:
    """Makes answers of item indices."""

    id_map: IdMap
    titles: Sequence[str]
    codes_NL: NDArray[np.integer]

    def lists(self, ranked: Ranked) -> list[tuple[Recommendation, ...]]:
        """Each history's items with ids, titles and codes; padding is dropped."""
        items_BK = ranked.items.numpy(force=True)
        is_item_BK = items_BK != PADDING
        said = {
            name: log_p_BK.numpy(force=True)[is_item_BK].tolist() for name, log_p_BK in ranked.experts.items()
        }
        recommendations = self.of(items_BK[is_item_BK], ranked.scores.numpy(force=True)[is_item_BK], said)
        return [tuple(islice(recommendations, count)) for count in is_item_BK.sum(axis=1).tolist()]

    def of(
        self,
        items_M: NDArray[np.int64],
        scores_M: NDArray[np.floating],
        experts: Mapping[str, Sequence[float]] | None = None,
    ) -> Iterator[Recommendation]:
        """Items with ids, titles and codes."""
        experts = experts or {}
        return map(
            Recommendation,
            self.id_map.ids(items_M),
            [self.titles[item] for item in items_M.tolist()],
            scores_M.tolist(),
            map(tuple, self.codes_NL[items_M].tolist()),
            [dict(zip(experts, row, strict=True)) for row in zip(*experts.values(), strict=True)]
            or repeat({}),
        )


def _line(item: Recommendation | SimilarItem) -> str:
    codes = "-".join(map(str, item.semantic_id))
    return f"{item.title or item.item_id}  {item.score:.3f}  ({item.item_id}, codes {codes})"
