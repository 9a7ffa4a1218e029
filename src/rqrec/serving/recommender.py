"""The Python API of a trained model: item ids in, recommendations out."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from itertools import chain, compress, islice, repeat
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray

from rqrec.core.artifact import find
from rqrec.core.hub import REPO_ID, download_artifact
from rqrec.data.encoders import kept_encoder
from rqrec.data.ids import PADDING, UnknownIdError
from rqrec.data.sequences import Histories, check_times
from rqrec.data.times import Time, lists_to_seconds
from rqrec.knn.index import KnnIndex
from rqrec.models.architectures import name_of
from rqrec.models.retrieval_model import CodeLookup
from rqrec.models.sasrec import SasRec
from rqrec.retrieval.artifact import CODES, CodesModel, RetrievalArtifact
from rqrec.retrieval.live_catalog import (
    add_items,
    can_take_new_items,
    describe_items,
    describe_updates,
    remove_items,
    update_items,
)
from rqrec.retrieval.ranking import Ranked
from rqrec.retrieval.retriever import BEAM_WIDTH, Retriever
from rqrec.retrieval.similar import similar_items
from rqrec.retrieval.versions import Change, LiveModel, change, read_live
from rqrec.serving.beside import beside
from rqrec.serving.rules import NO_RULES, RuleCompiler, Rules, fields_of_items
from rqrec.serving.search_index import CatalogSearch, SearchIndex
from rqrec.tokenizer.trie import Trie

DEFAULT_K = 10  # recommendations, wherever nothing else is asked for


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
        codes = "-".join(map(str, self.semantic_id))
        return f"{self.title or self.item_id}  {self.score:.3f}  ({self.item_id}, codes {codes})"


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
class CodeStep:
    """One code of a recommended item's semantic ID.

    `probability`: probability of the code, given the history and the preceding codes. `n_items`: number of
    items whose semantic IDs start with the codes up to this one. `others`: ids of some of them, without the
    item itself.
    """

    code: int
    probability: float
    n_items: int
    others: tuple[str, ...]


@dataclass(frozen=True)
class Reason:
    """An item of the history that the neighbours propose another item for; `share`: its part of that item's score."""

    item_id: str
    share: float


@dataclass(frozen=True)
class Neighbour:
    """An item of the history near another item.

    `shared`: number of leading codes that both have. `closeness`: of their codes, from 0 to 1.
    """

    item_id: str
    shared: int
    closeness: float


@dataclass(frozen=True)
class Explanation:
    """How the experts arrive at an item.

    `path`: for the expert "codes", the item's codes, whose probabilities multiply to exp(score); the score is the
    log-probability of this expert alone. `because`: for the neighbours, the items of the history that have the item
    among their neighbours, the largest share first; empty if there are none, or no neighbours were joined. `beside`:
    the items of the history nearest to the item by their codes, which is what the expert "codes" reads of them.
    """

    recommendation: Recommendation
    path: tuple[CodeStep, ...]
    because: tuple[Reason, ...] = ()
    beside: tuple[Neighbour, ...] = ()


@dataclass(frozen=True)
class SimilarItem:
    """A similar item; `score`: length of the shared prefix of codes, plus closeness from 0 to 1."""

    item_id: str
    title: str
    score: float
    semantic_id: tuple[int, ...]


@dataclass(frozen=True)
class FoundItem:
    """An item that a search found."""

    item_id: str
    title: str


def check_k(k: int) -> None:
    """Raise ValueError unless k is a whole number of at least 1."""
    if not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k is {k!r}, but must be a whole number of at least 1.")


class Recommender:
    """Recommends the next items for histories of item ids. Thread-safe.

    Examples:
        >>> recommender = Recommender.load("out/demo")                          # doctest: +SKIP
        >>> recommender.recommend([["50", "181"]], k=10)[0][0].title            # doctest: +SKIP
    """

    def __init__(
        self,
        checkpoint: RetrievalArtifact,
        *,
        beam_width: int = BEAM_WIDTH,
        device: torch.device | str = "cpu",
        source: Path | None = None,
        version: int = 0,
    ) -> None:
        """`source` is the folder of the artefact, and `version` that of its catalogue, for changes of its items."""
        self.catalog = checkpoint.catalog
        self.table = checkpoint.table
        self.titles = checkpoint.catalog.titles()
        self.model = checkpoint.model
        self.exclude_seen = checkpoint.exclude_seen
        self.artifact = checkpoint
        self.source, self.version = source, version
        self._retriever = checkpoint.retriever(beam_width, device)
        self._recommender = checkpoint.recommender(self._retriever)
        self._available_N = None if checkpoint.live is None else checkpoint.live.available_N
        # All items that may be recommended; the one of the search has only those of the training.
        self._all = self._retriever
        if self._available_N is not None:
            codes = checkpoint.model, checkpoint.table
            self._all = Retriever(*codes, beam_width, self._retriever.device, self._available_N)
        fields = fields_of_items(checkpoint.catalog, checkpoint.table)
        self._compile = RuleCompiler(fields, self._retriever.device, self._available_N)
        self._index = next((one for one in checkpoint.others.values() if isinstance(one, KnnIndex)), None)
        self._search_index = SearchIndex()

    def __repr__(self) -> str:
        joined = f", experts {', '.join(self.experts)}" if len(self.experts) > 1 else ""
        return f"Recommender({name_of(self.model.config)}, {len(self.catalog):,} items{joined})"

    @classmethod
    def load(
        cls, folder: Path | str, *, beam_width: int = BEAM_WIDTH, device: torch.device | str = "cpu"
    ) -> "Recommender":
        """Load a "retrieval" artefact, the run folder that contains one, or a Hugging Face repository.

        A string such as "owner/name" is a repository id unless a folder of that name exists.
        """
        if isinstance(folder, str) and REPO_ID.fullmatch(folder) and not Path(folder).exists():
            folder = download_artifact(folder)
        live, source = read_live(Path(folder)), find(Path(folder), "retrieval")
        return cls(live.artifact, beam_width=beam_width, device=device, source=source, version=live.version)

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = DEFAULT_K,
        *,
        exclude_seen: bool | None = None,
        allow: Collection[str] | None = None,
        block: Collection[str] | None = None,
        rules: Rules = NO_RULES,
        unknown: Literal["raise", "skip"] = "raise",
        timestamps: Sequence[Sequence[Time]] | None = None,
        users: Sequence[str | None] | None = None,
        experts: Sequence[str] | None = None,
    ) -> list[Recommendations]:
        """The k most probable next items for each history of item ids (oldest first), most probable first.

        Fewer are returned if fewer are allowed; see `Recommendations.n_allowed`. After an empty history, or one of
        unknown ids only, these are the most probable first items; the neighbours know none.

        exclude_seen: exclude the items of the history (None: as in the model's training, `self.exclude_seen`).
        allow: only these items may be recommended (None: any); block: these may not. Both apply to every
        history, and constrain the search itself: it finds the best k of the remaining items.
        rules: which items are allowed by their fields, how many of a list may share a value, and boosts.
        unknown: for an id in a history or a filter that is not in the catalogue, "raise" UnknownIdError, or
        "skip" it and list it in `Recommendations.skipped`.
        timestamps: time of each item of each history: a datetime, ISO 8601 text, or a number of seconds (or
        milliseconds, microseconds, nanoseconds: recognised by their size) since 1970, all in the same unit. Required
        by models trained with `time_gaps`, ignored by others.
        users: the user id of each history, or None. Optional, and used only by models trained with
        `user_buckets`.
        experts: ask these experts only: their names (`self.experts`), types (codes, dense, neighbours), or "trained":
        all but the neighbours. None: all.

        Raises UnknownIdError (see above), and ValueError if k is below 1, an expert is unknown, the rules do not fit
        the fields of the catalogue, or timestamps are invalid, or missing although required.
        """
        check_k(k)
        exclude_seen = self.exclude_seen if exclude_seen is None else exclude_seen
        inputs, skipped_ids = self._read(histories, timestamps, users, unknown)
        by_item, skipped_filter_ids = self._compile(rules), list[str]()
        if allow is not None or block:
            listed_N, skipped_filter_ids = self._filter(allow or (), block or (), allow is None, unknown)
            listed = torch.from_numpy(listed_N).to(self._retriever.device)
            both = listed if by_item.allowed_N is None else listed & by_item.allowed_N
            by_item = by_item._replace(allowed_N=both)
        ranked = self._recommender.only(self.artifact.select(experts)).recommend(
            inputs, min(k, len(self.catalog)), exclude_seen=exclude_seen, rules=by_item
        )
        allowed_N = None if by_item.allowed_N is None else by_item.allowed_N.numpy(force=True)
        n_allowed_items = len(self.catalog) if allowed_N is None else int(allowed_N.sum())
        results = []
        for history_T, skipped, items in zip(
            inputs.items_BT, skipped_ids, self._to_recommendations(ranked), strict=True
        ):
            n_allowed = n_allowed_items
            if exclude_seen:
                seen = np.unique(history_T[history_T != PADDING])
                n_allowed -= len(seen) if allowed_N is None else int(allowed_N[seen].sum())
            results.append(Recommendations(items, n_allowed, (*skipped, *skipped_filter_ids)))
        return results

    def explain(
        self,
        history: Sequence[str],
        item_id: str,
        *,
        examples: int = 3,
        timestamps: Sequence[Time] | None = None,
        user: str | None = None,
    ) -> Explanation:
        """How the experts arrive at an item after a history: see `Explanation`.

        `examples`: maximum number of other items at each code of the path. `timestamps` and `user` as in `recommend`.
        Raises UnknownIdError on an id that is not in the catalogue, ValueError if required timestamps are missing.
        """
        times = None if timestamps is None else [timestamps]
        ((explanation,),) = self.explain_all(
            [history], [[item_id]], examples=examples, timestamps=times, users=[user]
        )
        return explanation

    def explain_all(
        self,
        histories: Sequence[Sequence[str]],
        item_ids: Sequence[Sequence[str]],
        *,
        examples: int = 3,
        unknown: Literal["raise", "skip"] = "raise",
        timestamps: Sequence[Sequence[Time]] | None = None,
        users: Sequence[str | None] | None = None,
    ) -> list[tuple[Explanation, ...]]:
        """`explain` for several items of each history, such as the results of `recommend`, in one forward pass.

        `unknown` applies to the ids of the histories only; `timestamps` and `users` are as in `recommend`.
        """
        inputs, _ = self._read(histories, timestamps, users, unknown)
        items = [self._present(ids) for ids in item_ids]
        items_BK = Histories.of(items).items_BT
        log_probs_ML = self._code_log_probs(inputs, items_BK)[items_BK != PADDING]
        items_M = items_BK[items_BK != PADDING]
        explanations = map(
            Explanation,
            self._recommendations(items_M, log_probs_ML.sum(axis=1, dtype=np.float64)),
            self._paths(items_M, log_probs_ML, examples),
            chain.from_iterable(self._because(inputs, items)),
            chain.from_iterable(map(self._beside, inputs.items_BT, items, repeat(examples))),
        )
        return [tuple(islice(explanations, len(row))) for row in items]

    def similar_items(self, item_id: str, k: int = DEFAULT_K) -> list[SimilarItem]:
        """The k items that share the longest prefix of codes with an item; ties are ordered by closeness.

        Raises UnknownIdError on an id that is not in the catalogue, ValueError if k is below 1.
        """
        check_k(k)
        (item,) = self._present([item_id]).tolist()
        codes_NL = self._retriever.lookup.codes_NL
        similar = similar_items(
            self.model.codes, codes_NL, self.trie, item, k, content_levels=self.table.content_levels
        )
        rows = self._recommendations(similar.items.numpy(force=True), similar.scores.numpy(force=True))
        return [SimilarItem(row.item_id, row.title, row.score, row.semantic_id) for row in rows]

    def search(self, query: str, k: int = DEFAULT_K) -> list[FoundItem]:
        """The k items that match a query best, in any of their fields; typos are forgiven.

        See `rqrec.serving.search_index.CatalogSearch.find`. The first search indexes the catalogue. Raises ValueError
        if k is below 1.
        """
        check_k(k)
        items = self.search_in_catalog.find(query, k).items
        ids = self.catalog.id_map.ids(items)
        return [
            FoundItem(item_id, self.titles[item]) for item_id, item in zip(ids, items.tolist(), strict=True)
        ]

    @cached_property
    def search_in_catalog(self) -> CatalogSearch:
        """The search in the items that may be recommended."""
        return self._search_index.view(self.catalog.items, self.available, self.item_counts)

    @property
    def item_counts(self) -> NDArray[np.int64] | None:
        """How often each item was taken in training, int64 [N]; None if the artefact does not know it."""
        return (
            None
            if self._index is None or self._index.counts_N is None
            else self._index.counts_N.numpy(force=True)
        )

    def embed(
        self,
        histories: Sequence[Sequence[str]],
        *,
        expert: str = CODES,
        unknown: Literal["raise", "skip"] = "raise",
        timestamps: Sequence[Sequence[Time]] | None = None,
        users: Sequence[str | None] | None = None,
    ) -> NDArray[np.float32]:
        """The state of a trained expert after each history, float32 [B, D].

        Of an expert of type dense, its product with an item's vector (`item_vectors`) is the item's logit; of type
        codes, the first code of the next item is predicted from it. Other arguments are as in `recommend`. Raises
        ValueError if the expert is unknown or is not trained.
        """
        inputs, _ = self._read(histories, timestamps, users, unknown)
        found = self.trained_expert(expert)
        with torch.inference_mode():
            if isinstance(found, SasRec):
                return found.encode(inputs).float().numpy(force=True)
            model: Any = found.model
            lookup = CodeLookup.from_codes(found.table.codes_NL, self._retriever.device)
            context = model.encode(lookup.batch(inputs, model.max_items))
            return model.state(context).float().numpy(force=True)

    def item_vectors(self, expert: str = CODES) -> NDArray[np.float32]:
        """The vectors of all items of the catalogue in a trained expert, float32 [N, D].

        Of an expert of type codes, these are the embeddings of an item's codes one after another. Raises ValueError
        as `embed` does.
        """
        found = self.trained_expert(expert)
        with torch.inference_mode():
            if isinstance(found, SasRec):
                return found.item_vectors().float().numpy(force=True)
            codes_NL = torch.from_numpy(found.table.codes_NL.astype(np.int64)).to(self._retriever.device)
            return found.model.codes(codes_NL).flatten(1).float().numpy(force=True)

    def code_vectors(self, expert: str = CODES) -> list[NDArray[np.float32]]:
        """The embeddings of the codes of each level in an expert of type codes, float32 [V, D].

        Raises ValueError as `embed` does, and if the expert has no codes.
        """
        found = self.trained_expert(expert)
        if isinstance(found, SasRec):
            raise ValueError(f"The expert {expert!r} has no codes: name one of type codes.")
        rows, levels = found.model.codes.rows, range(len(found.table.level_sizes))
        return [rows(level).detach().numpy(force=True) for level in levels]

    def trained_expert(self, name: str) -> CodesModel | SasRec:
        """An expert by its name. Raises ValueError if there is none of that name, or it is not trained."""
        found = self.artifact.codes_models.get(name) or self.artifact.others.get(name)
        if isinstance(found, CodesModel | SasRec):
            return found
        trained = [one for one, kind in self.experts.items() if kind in ("codes", "dense")]
        raise ValueError(f"There is no trained expert {name!r}; this model has {', '.join(trained)}.")

    @property
    def experts(self) -> dict[str, str]:
        """The experts of the model by name, each with its type: codes, dense, neighbours, or content of new items."""
        return self.artifact.types

    def index_recall(self, expert: str) -> float | None:
        """What share of an expert's best items its index finds; None if it has no index, but scores every item."""
        index = self.artifact.index_of_expert(expert, self._retriever.device)
        return None if index is None else index.recall

    @property
    def fields(self) -> list[str]:
        """The fields of items that rules may name."""
        return self._compile.fields.names

    def check_rules(self, rules: Rules) -> None:
        """Raise ValueError if rules cannot be read, or name a field that there is not."""
        self._compile(rules)

    @property
    def trie(self) -> Trie:
        """The semantic IDs of all items that may be recommended, as a tree."""
        return self._all.trie

    @property
    def available(self) -> NDArray[np.bool_]:
        """The items that may be recommended: all but those that were removed, bool by item index."""
        return np.ones(len(self.catalog), dtype=bool) if self._available_N is None else self._available_N

    def add_items(
        self, items: Sequence[Mapping[str, Any]], vectors: NDArray[np.floating] | None = None
    ) -> "Recommender":
        """A recommender with more items: this one is unchanged, and may still answer requests.

        Each item has an `item_id`, a `title`, the `text` that the encoder reads (by default the title), and any
        fields of the catalogue, which rules can use. `vectors` [items, dim] are needed if those of the model were
        given, too. Items that were removed come back as they were. The new catalogue becomes the current version of
        the model's folder. Raises ValueError on ids that are in the catalogue, invalid values, or a model that cannot
        take new items.
        """
        described = describe_items(items, self.artifact.as_trained.catalog)
        if vectors is None:
            kept = can_take_new_items(self.artifact.as_trained)
            encode = None if kept.settings.encoder is None else kept_encoder(kept.settings.encoder)
            vectors = kept.encode(described["text"].to_list(), encode)
        given = vectors
        return self._changed(
            f"{len(described)} added", lambda trained, before: add_items(trained, before, described, given)
        )

    def remove_items(self, item_ids: Sequence[str]) -> "Recommender":
        """A recommender that never recommends these items, and still reads them in histories: see `add_items`.

        Raises UnknownIdError on an id that is not in the catalogue, or was removed before.
        """
        return self._changed(
            f"{len(item_ids)} removed", lambda trained, before: remove_items(trained, before, item_ids)
        )

    def update_items(self, items: Sequence[Mapping[str, Any]]) -> "Recommender":
        """A recommender with items described otherwise: `item_id`, and `title`, `text` or fields; see `add_items`.

        What is not given stays. Codes and vectors stay, too: the model has learned what they mean.
        """
        values = describe_updates(items, self.artifact.as_trained.catalog)
        return self._changed(
            f"{len(values)} updated", lambda trained, before: update_items(trained, before, values)
        )

    def _changed(self, what: str, make: Change) -> "Recommender":
        if self.source is None:
            raise ValueError("This recommender was not loaded from a folder, so its items cannot be changed.")
        live = change(self.source, what, make, LiveModel(self.artifact, self.version))
        return self.changed_to(live)

    def changed_to(self, live: LiveModel) -> "Recommender":
        """The recommender of a changed catalogue; what this one has indexed for searches is not indexed again."""
        width, device = self._retriever.beam_width, self._retriever.device
        changed = Recommender(
            live.artifact, beam_width=width, device=device, source=self.source, version=live.version
        )
        changed._search_index = self._search_index
        return changed

    def _present(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        """The indices of items that may be recommended. Raises UnknownIdError for others."""
        items = self.catalog.id_map.indices(_as_ids(item_ids))
        if self._available_N is not None and len(gone := np.flatnonzero(~self._available_N[items])):
            raise UnknownIdError(f"Item {item_ids[int(gone[0])]!r} was removed from the catalogue.")
        return items

    def _code_log_probs(self, inputs: Histories, items_BK: NDArray[np.int64]) -> NDArray[np.float32]:
        """log p of each code, float32 [B, K, L]: of known items among the known ones, of new ones among all items."""
        if self._retriever.known_N is None:
            return self._retriever.code_log_probs(inputs, items_BK).numpy(force=True)
        is_new_BK = ~self._retriever.known_N[items_BK] & (items_BK != PADDING)
        parts = [
            retriever.code_log_probs(
                inputs, np.where(mine_BK, items_BK, retriever.trie.item_of_leaf[0].item())
            )
            for retriever, mine_BK in ((self._retriever, ~is_new_BK), (self._all, is_new_BK))
        ]
        known_BKL, new_BKL = (part.numpy(force=True) for part in parts)
        return np.where(is_new_BK[:, :, None], new_BKL, known_BKL)

    def _paths(
        self, items_M: NDArray[np.int64], log_probs_ML: NDArray[np.float32], examples: int
    ) -> list[tuple[CodeStep, ...]]:
        """The path of codes to each item, with up to `examples` other items at each code."""
        items, steps = torch.from_numpy(items_M).to(self.trie.leaf_of_item.device), []
        for level, probabilities_M in enumerate(np.exp(log_probs_ML).T):
            leaf_start = self.trie.depths[level + 1].leaf_start
            nodes_M = self.trie.nodes_of_items(items, level + 1)
            start_M, end_M = leaf_start[nodes_M], leaf_start[nodes_M + 1]
            leaves_ME = start_M[:, None] + torch.arange(examples + 1, device=items.device)
            sharing_ME = self.trie.item_of_leaf[leaves_ME.clamp(max=self.trie.n_items - 1)]
            is_other_ME = (leaves_ME < end_M[:, None]) & (sharing_ME != items[:, None])
            is_other_ME &= is_other_ME.cumsum(1) <= examples
            others = iter(self.catalog.id_map.ids(sharing_ME[is_other_ME].tolist()))
            rows = zip(
                self.table.codes_NL[items_M, level].tolist(),
                probabilities_M.tolist(),
                (end_M - start_M).tolist(),
                is_other_ME.sum(1).tolist(),
                strict=True,
            )
            steps.append(
                [
                    CodeStep(code, probability, n_items, tuple(islice(others, n_others)))
                    for code, probability, n_items, n_others in rows
                ]
            )
        return list(zip(*steps, strict=True))

    def _beside(
        self, history_T: NDArray[np.int64], items_K: NDArray[np.int64], count: int
    ) -> list[tuple[Neighbour, ...]]:
        """For each item, the `count` items of the history nearest to it by their codes."""
        history_T = history_T[history_T != PADDING]
        codes_NL, levels = self._retriever.lookup.codes_NL, self.table.content_levels
        near = beside(self.model.codes, codes_NL, items_K, history_T, count, content_levels=levels)
        ids = self.catalog.id_map.ids
        return [
            tuple(
                Neighbour(item_id, *one[1:])
                for item_id, one in zip(ids([n.item for n in row]), row, strict=True)
            )
            for row in near
        ]

    def _because(
        self, histories: Histories, items: Sequence[NDArray[np.int64]]
    ) -> list[list[tuple[Reason, ...]]]:
        """For each item, the items of the history that the neighbours propose it for."""
        if self._index is None:
            return [[()] * len(items_K) for items_K in items]
        items_BK = torch.from_numpy(Histories.of(items).items_BT).to(self._index.neighbours_NM.device)
        parts_BKT = self._index.contributions(histories, items_BK).numpy(force=True)
        recent_BT = histories.last(self._index.settings.max_items).items_BT
        return [
            self._reasons(recent_T, parts_KT[: len(items_K)])
            for items_K, recent_T, parts_KT in zip(items, recent_BT, parts_BKT, strict=True)
        ]

    def _reasons(
        self, recent_T: NDArray[np.int64], parts_KT: NDArray[np.float32]
    ) -> list[tuple[Reason, ...]]:
        """For each of K items, the items of a history with a part in its score, the largest share first."""
        items_U, places = np.unique(recent_T[recent_T != PADDING], return_inverse=True)
        parts_KU = parts_KT[:, recent_T != PADDING].astype(np.float64) @ np.eye(len(items_U))[places]
        shares_KU = parts_KU / parts_KU.sum(axis=1, keepdims=True).clip(np.finfo(np.float32).tiny)
        ids = self.catalog.id_map.ids(items_U)
        return [
            tuple(
                Reason(ids[u], float(shares_U[u]))
                for u in np.argsort(-shares_U, kind="stable")
                if shares_U[u]
            )
            if shares_U.any()
            else ()
            for shares_U in shares_KU
        ]

    def _read(
        self,
        histories: Sequence[Sequence[str]],
        timestamps: Sequence[Sequence[Time]] | None,
        users: Sequence[str | None] | None,
        unknown: Literal["raise", "skip"],
    ) -> tuple[Histories, list[list[str]]]:
        """The histories as item indices, and the skipped ids of each."""
        _check_histories(histories)
        rows = [self._indices(history, unknown) for history in histories]
        # A history without items needs no times.
        times: list[list[int]] | None = None if any(map(len, histories)) else [[] for _ in histories]
        if timestamps is not None:
            check_times(histories, timestamps)
            times = [
                list(compress(seconds, self.catalog.id_map.find(history) != PADDING))
                for seconds, history in zip(lists_to_seconds(timestamps), histories, strict=True)
            ]
        inputs = Histories.of([indices for indices, _ in rows], times, users)
        return inputs, [skipped for _, skipped in rows]

    def _indices(
        self, ids: Iterable[str], unknown: Literal["raise", "skip"]
    ) -> tuple[NDArray[np.int64], list[str]]:
        """The item indices of ids, and the skipped ids."""
        if unknown not in ("raise", "skip"):
            raise ValueError(f"unknown is {unknown!r}; allowed are 'raise' and 'skip'.")
        ids = _as_ids(ids)
        if unknown == "raise":
            return self.catalog.id_map.indices(ids), []
        indices = self.catalog.id_map.find(ids)
        return indices[indices != PADDING], list(compress(ids, indices == PADDING))

    def _filter(
        self,
        allow: Collection[str],
        block: Collection[str],
        others: bool,
        unknown: Literal["raise", "skip"],
    ) -> tuple[NDArray[np.bool_], list[str]]:
        """Which items are in these lists, bool [N], and the skipped ids; `others`: whether items in neither are."""
        allowed_N = np.full(len(self.catalog), others)
        allow_indices, skipped_allow = self._indices(allow, unknown)
        allowed_N[allow_indices] = True
        block_indices, skipped_block = self._indices(block, unknown)
        allowed_N[block_indices] = False
        return allowed_N, skipped_allow + skipped_block

    def _to_recommendations(self, ranked: Ranked) -> list[tuple[Recommendation, ...]]:
        """Each history's items with ids, titles and codes; padding is dropped."""
        items_BK = ranked.items.numpy(force=True)
        is_item_BK = items_BK != PADDING
        said = {
            name: log_p_BK.numpy(force=True)[is_item_BK].tolist() for name, log_p_BK in ranked.experts.items()
        }
        recommendations = self._recommendations(
            items_BK[is_item_BK], ranked.scores.numpy(force=True)[is_item_BK], said
        )
        return [tuple(islice(recommendations, count)) for count in is_item_BK.sum(axis=1).tolist()]

    def _recommendations(
        self,
        items_M: NDArray[np.int64],
        scores_M: NDArray[np.floating],
        experts: Mapping[str, Sequence[float]] | None = None,
    ) -> Iterator[Recommendation]:
        """Items with ids, titles and codes."""
        experts = experts or {}
        return map(
            Recommendation,
            self.catalog.id_map.ids(items_M),
            [self.titles[item] for item in items_M.tolist()],
            scores_M.tolist(),
            map(tuple, self.table.codes_NL[items_M].tolist()),
            [dict(zip(experts, row, strict=True)) for row in zip(*experts.values(), strict=True)]
            or repeat({}),
        )


def _check_histories(histories: Sequence[Sequence[str]]) -> None:
    """Raise ValueError unless these are lists of ids, one for each user."""
    if isinstance(histories, str):
        raise ValueError(
            f"histories is the text {histories!r}, but must be a list of histories: [[{histories!r}]]."
        )
    for history in histories:
        if isinstance(history, str) or not isinstance(history, Iterable):
            raise ValueError(
                f"histories must be a list of histories, one per user, each a list of item ids, but {history!r} is "
                f"in the place of one: pass [[{str(history)!r}]] for one user, instead of [{history!r}]."
            )


def _as_ids(ids: Iterable[str]) -> list[str]:
    """Ids as a list. Raises ValueError on a single string, and on an id that is none."""
    if isinstance(ids, str):
        raise ValueError(f"A list of item ids is needed: pass [{ids!r}] instead of {ids!r}.")
    ids = list(ids)
    for item_id in ids:
        if not isinstance(item_id, str):
            raise ValueError(f"Item ids are strings: pass {str(item_id)!r} instead of {item_id!r}.")
    return ids
