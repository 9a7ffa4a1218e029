"""Recommendations by outside ids: what an application calls."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress, islice
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray

from rqrec.core.hub import REPO_ID, download_artifact
from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories, check_times
from rqrec.retrieval.artifact import RetrievalArtifact, read_retrieval
from rqrec.retrieval.ranking import Ranked
from rqrec.retrieval.retriever import Retriever
from rqrec.retrieval.similar import similar_items
from rqrec.tokenizer.trie import Trie


@dataclass(frozen=True)
class Recommendation:
    """A recommended item; `score` is its log-probability, `semantic_id` its codes."""

    item_id: str
    title: str
    score: float
    semantic_id: tuple[int, ...]


@dataclass(frozen=True)
class Recommendations(Sequence[Recommendation]):
    """What one history gets, the likeliest first: a sequence of `Recommendation`.

    `n_allowed` items could have been recommended: fewer than k come back where it is below k (or where
    `max_per_code` holds some back). `skipped` are the request's unknown ids that were passed over.
    """

    items: tuple[Recommendation, ...]
    n_allowed: int
    skipped: tuple[str, ...] = ()

    @overload
    def __getitem__(self, place: int) -> Recommendation: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Recommendation, ...]: ...
    def __getitem__(self, place: int | slice) -> Recommendation | tuple[Recommendation, ...]:
        return self.items[place]

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Step:
    """One code of a recommended item's semantic ID.

    `probability`: of the code, given the history and the codes before it. `n_items` of the catalogue have
    the codes up to this one; `others` are ids of some of them, without the item itself.
    """

    code: int
    probability: float
    n_items: int
    others: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """How the model came to an item: the path of its codes, whose probabilities multiply to e^score."""

    recommendation: Recommendation
    path: tuple[Step, ...]


@dataclass(frozen=True)
class SimilarItem:
    """An item like another; `score`: codes that they share from the first on, plus nearness from 0 to 1."""

    item_id: str
    title: str
    score: float
    semantic_id: tuple[int, ...]


class Recommender:
    """History in, items out. Threads may share one.

    >>> recommender = Recommender.load("out/demo")                          # doctest: +SKIP
    >>> recommender.recommend([["50", "181"]], k=10)[0][0].title            # doctest: +SKIP
    """

    def __init__(self, checkpoint: RetrievalArtifact, *, beam_width: int = 50) -> None:
        self.catalog = checkpoint.catalog
        self.table = checkpoint.table
        self.titles = checkpoint.catalog.titles()
        self.model = checkpoint.model
        self._retriever = Retriever(checkpoint.search_model(), checkpoint.table, beam_width)

    @classmethod
    def load(cls, folder: Path | str, *, beam_width: int = 50) -> "Recommender":
        """From a "retrieval" artefact, the folder of a run that has one inside, or a Hugging Face repository.

        A repository is named by its id, a string such as "owner/name", where no folder has that name.
        """
        if isinstance(folder, str) and REPO_ID.fullmatch(folder) and not Path(folder).exists():
            folder = download_artifact(folder)
        return cls(read_retrieval(Path(folder)), beam_width=beam_width)

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        exclude_seen: bool = True,
        allow: Collection[str] | None = None,
        block: Collection[str] | None = None,
        max_per_code: int | None = None,
        unknown: Literal["raise", "skip"] = "raise",
        timestamps: Sequence[Sequence[int]] | None = None,
        users: Sequence[str | None] | None = None,
    ) -> list[Recommendations]:
        """The k best items for each history of item ids (oldest first), the likeliest first.

        Fewer come back where fewer are allowed; `Recommendations.n_allowed` says how many are. An empty
        history gets what is likely as a first item.

        allow: only these items may come back (None: any); block: these may not. Both hold within the
        search, which finds the best k of what is left, and for all histories of the call.
        max_per_code: at most so many items that share the first code of their semantic IDs (variety).
        unknown: what to do about an id that the catalogue does not have, in a history or a filter: "raise"
        an UnknownIdError, or "skip" it and list it in `Recommendations.skipped`.
        timestamps: unix seconds of each item of each history; a model that was trained with `time_gaps` needs
        them, others don't look at them.
        users: the id of each history's user, None where there is none; only a model that was trained with
        `user_buckets` looks at them, and can do without.

        Raises UnknownIdError (see above), ValueError on k or max_per_code below 1, and on timestamps that
        are missing.
        """
        if k < 1:
            raise ValueError(f"k is {k}, but at least 1 recommendation must be asked for.")
        known, passed_over = self._read(histories, timestamps, users, unknown)
        allowed_N, skipped = self._filter(allow, block, unknown)
        ranked = self._retriever.recommend(
            known,
            min(k, len(self.catalog)),
            exclude_seen=exclude_seen,
            allowed_N=allowed_N,
            max_per_code=max_per_code,
        )
        found = []
        for history_T, missing, described in zip(
            known.items_BT, passed_over, self._described(ranked), strict=True
        ):
            n_allowed = len(self.catalog) if allowed_N is None else int(allowed_N.sum())
            if exclude_seen:
                seen = np.unique(history_T[history_T != PADDING])
                n_allowed -= len(seen) if allowed_N is None else int(allowed_N[seen].sum())
            found.append(Recommendations(described, n_allowed, (*missing, *skipped)))
        return found

    def explain(
        self,
        history: Sequence[str],
        item_id: str,
        *,
        examples: int = 3,
        timestamps: Sequence[int] | None = None,
        user: str | None = None,
    ) -> Explanation:
        """How likely each code of an item is after a history, and up to `examples` other items beside it.

        `timestamps` and `user` as in `recommend`. Raises UnknownIdError on an id that the catalogue does not
        have, ValueError on timestamps that are missing.
        """
        times = None if timestamps is None else [timestamps]
        found = self.explain_all([history], [[item_id]], examples=examples, timestamps=times, users=[user])
        return found[0][0]

    def explain_all(
        self,
        histories: Sequence[Sequence[str]],
        item_ids: Sequence[Sequence[str]],
        *,
        examples: int = 3,
        unknown: Literal["raise", "skip"] = "raise",
        timestamps: Sequence[Sequence[int]] | None = None,
        users: Sequence[str | None] | None = None,
    ) -> list[tuple[Explanation, ...]]:
        """`explain` for several items of each history, such as a whole answer of `recommend`, in one pass.

        `unknown` is about the ids of the histories, `timestamps` and `users` are as in `recommend`.
        """
        known, _ = self._read(histories, timestamps, users, unknown)
        items = [self.catalog.id_map.indices(ids) for ids in item_ids]
        log_probs_BKL = self._retriever.code_log_probs(known, Histories.of(items).items_BT)
        return [
            tuple(
                self._explanation(item, log_probs, examples)
                for item, log_probs in zip(row.tolist(), log_probs_KL.tolist(), strict=False)
            )
            for row, log_probs_KL in zip(items, log_probs_BKL, strict=True)
        ]

    def similar_items(self, item_id: str, k: int = 10) -> list[SimilarItem]:
        """The k items that share the most of an item's semantic ID, the nearest first among equals.

        Raises UnknownIdError on an id that the catalogue does not have, ValueError on k below 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}, but at least 1 item must be asked for.")
        (item,) = self.catalog.id_map.indices([item_id]).tolist()
        codes_NL = self._retriever.lookup.codes_NL
        found = similar_items(self.model.codes, codes_NL, self.trie, item, k)
        described = (self._describe(i, s) for i, s in zip(*(x.tolist() for x in found), strict=True))
        return [SimilarItem(d.item_id, d.title, d.score, d.semantic_id) for d in described]

    @property
    def trie(self) -> Trie:
        """The semantic IDs of the catalogue as a tree."""
        return self._retriever.trie

    def _explanation(self, item: int, log_probs: Sequence[float], examples: int) -> Explanation:
        path = []
        for level, log_prob in enumerate(log_probs):
            beside = self.trie.items_sharing_prefix(item, level + 1)
            others = [other for other in beside[: examples + 1].tolist() if other != item][:examples]
            path.append(
                Step(
                    code=int(self.table.codes_NL[item, level]),
                    probability=float(np.exp(log_prob)),
                    n_items=len(beside),
                    others=tuple(self.catalog.id_map.ids(others)),
                )
            )
        return Explanation(self._describe(item, float(sum(log_probs))), tuple(path))

    def _read(
        self,
        histories: Sequence[Sequence[str]],
        timestamps: Sequence[Sequence[int]] | None,
        users: Sequence[str | None] | None,
        unknown: Literal["raise", "skip"],
    ) -> tuple[Histories, list[list[str]]]:
        """The histories by item index, and the ids of each that were skipped."""
        read = [self._indices(history, unknown) for history in histories]
        if timestamps is not None:
            check_times(histories, timestamps)
            timestamps = [
                list(compress(times, self.catalog.id_map.find(history) != PADDING))
                for times, history in zip(timestamps, histories, strict=True)
            ]
        known = Histories.of([indices for indices, _ in read], timestamps, users)
        return known, [missing for _, missing in read]

    def _indices(
        self, ids: Iterable[str], unknown: Literal["raise", "skip"]
    ) -> tuple[NDArray[np.int64], list[str]]:
        """Item indices of ids, and the ids that were skipped."""
        if unknown not in ("raise", "skip"):
            raise ValueError(f"unknown is {unknown!r}: use 'raise' or 'skip'.")
        ids = list(ids)
        if unknown == "raise":
            return self.catalog.id_map.indices(ids), []
        found = self.catalog.id_map.find(ids)
        return found[found != PADDING], list(compress(ids, found == PADDING))

    def _filter(
        self,
        allow: Collection[str] | None,
        block: Collection[str] | None,
        unknown: Literal["raise", "skip"],
    ) -> tuple[NDArray[np.bool_] | None, list[str]]:
        """Which items may come back, bool by item index (None: all), and the ids that were skipped."""
        if allow is None and not block:
            return None, []
        allowed_N = np.full(len(self.catalog), allow is None)
        allow_indices, missing = self._indices(allow or (), unknown)
        allowed_N[allow_indices] = True
        block_indices, more = self._indices(block or (), unknown)
        allowed_N[block_indices] = False
        return allowed_N, missing + more

    def _described(self, ranked: Ranked) -> list[tuple[Recommendation, ...]]:
        """Each history's items with their ids, titles and codes; what is no item is left out."""
        items_BK = ranked.items.numpy(force=True)
        rows_B = (items_BK != PADDING).sum(axis=1)
        items = items_BK[items_BK != PADDING]
        described = map(
            Recommendation,
            self.catalog.id_map.ids(items),
            [self.titles[item] for item in items],
            ranked.scores.numpy(force=True)[items_BK != PADDING].tolist(),
            map(tuple, self.table.codes_NL[items].tolist()),
        )
        return [tuple(islice(described, count)) for count in rows_B.tolist()]

    def _describe(self, item: int, score: float) -> Recommendation:
        return self._described(Ranked(torch.tensor([[item]]), torch.tensor([[score]], dtype=torch.float64)))[
            0
        ][0]
