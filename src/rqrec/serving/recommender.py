"""Recommendations by outside ids: what an application calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rqrec.data.sequences import pad_histories
from rqrec.retrieval.checkpoint import Checkpoint, read_checkpoint
from rqrec.retrieval.retriever import Retriever


@dataclass(frozen=True)
class Recommendation:
    """A recommended item; `score` is its log-probability, `semantic_id` its codes."""

    item_id: str
    title: str
    score: float
    semantic_id: tuple[int, ...]


class Recommender:
    """History in, items out.

    >>> recommender = Recommender.load("out/demo")                          # doctest: +SKIP
    >>> recommender.recommend([["50", "181"]], k=10)[0][0].title            # doctest: +SKIP
    """

    def __init__(self, checkpoint: Checkpoint, *, beam_width: int = 50) -> None:
        self.catalog = checkpoint.catalog
        self.table = checkpoint.table
        self._titles = checkpoint.catalog.titles()
        self._retriever = Retriever(checkpoint.model, checkpoint.table, beam_width)

    @classmethod
    def load(cls, folder: Path | str, *, beam_width: int = 50) -> "Recommender":
        """From a "retrieval" artefact, or the folder of a run that has one inside."""
        return cls(read_checkpoint(Path(folder)), beam_width=beam_width)

    def recommend(
        self, histories: Sequence[Sequence[str]], k: int = 10, *, exclude_seen: bool = True
    ) -> list[list[Recommendation]]:
        """The k best items for each history of item ids (oldest first), the likeliest first.

        Fewer come back where fewer are allowed. An empty history gets what is likely as a first item.
        Raises UnknownIdError on an id that the catalogue does not have, ValueError on k below 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}, but at least 1 recommendation must be asked for.")
        items_BT = pad_histories([self.catalog.id_map.indices(history) for history in histories])
        ranked = self._retriever.recommend(items_BT, min(k, len(self.catalog)), exclude_seen=exclude_seen)
        return [
            [self._describe(item, score) for item, score in zip(items, scores, strict=True) if item >= 0]
            for items, scores in zip(ranked.items.tolist(), ranked.scores.tolist(), strict=True)
        ]

    def _describe(self, item: int, score: float) -> Recommendation:
        (item_id,) = self.catalog.id_map.ids([item])
        codes = tuple(self.table.codes_NL[item].tolist())
        return Recommendation(item_id, self._titles[item], score, codes)
