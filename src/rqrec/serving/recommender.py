"""The Python API of a trained model: item ids in, recommendations out.

Shapes: B histories, T items of a history, N items of the catalogue, L levels, V codes of a level, D width.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rqrec.core.artifact import find
from rqrec.core.hub import REPO_ID, download_artifact
from rqrec.data.encoders import kept_encoder
from rqrec.data.ids import PADDING, UnknownIdError
from rqrec.data.times import Time
from rqrec.knn.index import KnnIndex
from rqrec.models.architectures import name_of
from rqrec.models.retrieval_model import CodeLookup
from rqrec.models.sasrec import SasRec
from rqrec.retrieval.artifact import CODES, CodesModel, RetrievalArtifact
from rqrec.retrieval.defaults import BEAM_WIDTH, DEFAULT_K
from rqrec.retrieval.ensemble import PROPOSALS, Ensemble, ExpertSettings
from rqrec.retrieval.experts import PopularityExpert
from rqrec.retrieval.live_catalog import (
    add_items,
    all_return,
    can_take_new_items,
    describe_items,
    describe_updates,
    remove_items,
    update_items,
)
from rqrec.retrieval.model_items import training_counts
from rqrec.retrieval.retriever import Retriever
from rqrec.retrieval.similar import similar_items
from rqrec.retrieval.versions import Change, LiveModel, change, read_live
from rqrec.serving.answers import Answers, Recommendations, SimilarItem
from rqrec.serving.explanations import Explainer, Explanation
from rqrec.serving.requests import RequestReader, Unknown, as_ids
from rqrec.serving.rule_compiler import RuleCompiler, fields_of_items
from rqrec.serving.rules import NO_RULES, Rules
from rqrec.serving.search_index import CatalogSearch, FoundItem, SearchIndex
from rqrec.tokenizer.trie import Trie

POPULARITY = "popularity"


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
        self._reader = RequestReader(self.catalog.id_map)
        self._answers = Answers(self.catalog.id_map, self.titles, self.table.codes_NL)
        self._explainer = Explainer(self._answers, self.model, self._retriever, self._all, self._index)
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
        unknown: Unknown = "raise",
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
        all but the neighbours; or, to compare, the most popular items alone: ["popularity"]. None: all.

        Raises UnknownIdError (see above), and ValueError if k is below 1, an expert is unknown, the rules do not fit
        the fields of the catalogue, or timestamps are invalid, or missing although required.
        """
        check_k(k)
        exclude_seen = self.exclude_seen if exclude_seen is None else exclude_seen
        inputs, skipped_ids = self._reader.histories(histories, timestamps, users, unknown)
        by_item, skipped_filter_ids = self._compile(rules), list[str]()
        if allow is not None or block:
            listed_N, skipped_filter_ids = self._reader.listed(
                allow or (), block or (), allow is None, unknown
            )
            listed = torch.from_numpy(listed_N).to(self._retriever.device)
            both = listed if by_item.allowed_N is None else listed & by_item.allowed_N
            by_item = by_item._replace(allowed_N=both)
        names = self.select(experts)
        asked = self._popularity if names == [POPULARITY] else self._recommender.only(names)
        ranked = asked.recommend(inputs, min(k, len(self.catalog)), exclude_seen=exclude_seen, rules=by_item)
        allowed_N = None if by_item.allowed_N is None else by_item.allowed_N.numpy(force=True)
        n_allowed_items = len(self.catalog) if allowed_N is None else int(allowed_N.sum())
        results = []
        for history_T, skipped, items in zip(
            inputs.items_BT, skipped_ids, self._answers.lists(ranked), strict=True
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
        unknown: Unknown = "raise",
        timestamps: Sequence[Sequence[Time]] | None = None,
        users: Sequence[str | None] | None = None,
    ) -> list[tuple[Explanation, ...]]:
        """`explain` for several items of each history, such as the results of `recommend`, in one forward pass.

        `unknown` applies to the ids of the histories only; `timestamps` and `users` are as in `recommend`.
        """
        inputs, _ = self._reader.histories(histories, timestamps, users, unknown)
        return self._explainer.explain(inputs, [self._present(ids) for ids in item_ids], examples)

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
        rows = self._answers.of(similar.items.numpy(force=True), similar.scores.numpy(force=True))
        return [SimilarItem(row.item_id, row.title, row.score, row.semantic_id) for row in rows]

    def search(self, query: str, k: int = DEFAULT_K) -> list[FoundItem]:
        """The k items that match a query best, in any of their fields; typos are forgiven.

        See `rqrec.serving.search_index.CatalogSearch.find`. The first search indexes the catalogue. Raises ValueError
        if k is below 1.
        """
        check_k(k)
        return self.search_in_catalog.found_items(query, k, self.catalog)

    @cached_property
    def search_in_catalog(self) -> CatalogSearch:
        """The search in the items that may be recommended."""
        return self._search_index.view(self.catalog.items, self.available, self.item_counts)

    @cached_property
    def item_counts(self) -> NDArray[np.int64] | None:
        """How often each item was taken in training, int64 [N]; None if neither neighbours nor a dataset tell."""
        if self._index is not None and self._index.counts_N is not None:
            return self._index.counts_N.numpy(force=True)
        return None if self.source is None else training_counts(self.source, len(self.catalog))

    @property
    def baselines(self) -> list[str]:
        """What can be asked instead of the experts, to compare: popularity, where `item_counts` are known."""
        return [] if self.item_counts is None else [POPULARITY]

    @cached_property
    def _popularity(self) -> Ensemble:
        assert self.item_counts is not None
        device = self._retriever.device
        expert = PopularityExpert(torch.from_numpy(self.item_counts).to(device))
        return Ensemble({POPULARITY: expert}, {POPULARITY: ExpertSettings()}, PROPOSALS, device)

    def select(self, words: Sequence[str] | None) -> list[str]:
        """The names of the experts that `words` mean (see `recommend`), or that of a baseline.

        Raises ValueError if a word means none, or a baseline is not alone.
        """
        if words is None or POPULARITY not in words:
            return self.artifact.select(words)
        if self.item_counts is None:
            raise ValueError(
                "How popular items are is not known: the model has no neighbours, and its dataset is not near it. "
                "Leave popularity out, or put the dataset beside the model."
            )
        if len(words) > 1:
            raise ValueError(f"{POPULARITY} is a baseline, and is asked alone: leave the others out, or it.")
        return [POPULARITY]

    def embed(
        self,
        histories: Sequence[Sequence[str]],
        *,
        expert: str = CODES,
        unknown: Unknown = "raise",
        timestamps: Sequence[Sequence[Time]] | None = None,
        users: Sequence[str | None] | None = None,
    ) -> NDArray[np.float32]:
        """The state of a trained expert after each history, float32 [B, D].

        Of an expert of type dense, its product with an item's vector (`item_vectors`) is the item's logit; of type
        codes, the first code of the next item is predicted from it. Other arguments are as in `recommend`. Raises
        ValueError if the expert is unknown or is not trained.
        """
        inputs, _ = self._reader.histories(histories, timestamps, users, unknown)
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

        Each item has an `item_id`, a `title`, the `text` that the encoder reads (by default made from title and
        fields, as in the training), and any fields of the catalogue, which rules can use. `vectors` [items, dim] are
        needed if those of the model were given, too. Items that were removed come back with the semantic IDs that
        they had. The new catalogue becomes the current version of the model's folder. Raises ValueError on ids that
        are in the catalogue, invalid values, or a model that cannot take new items.
        """
        trained = self.artifact.as_trained
        template = None if trained.vectors is None else trained.vectors.settings.template
        described = describe_items(items, trained.catalog, template)
        if vectors is None and not all_return(self.artifact, described["item_id"]):
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
            f"{len(set(item_ids))} removed", lambda trained, before: remove_items(trained, before, item_ids)
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
        items = self.catalog.id_map.indices(as_ids(item_ids))
        if self._available_N is not None and len(gone := np.flatnonzero(~self._available_N[items])):
            raise UnknownIdError(f"Item {item_ids[int(gone[0])]!r} was removed from the catalogue.")
        return items
