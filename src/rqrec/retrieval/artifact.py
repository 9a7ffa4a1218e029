"""Trained models on disk: one folder contains everything needed to recommend.

Shapes: N items of the catalogue, M new items, D width of a vector, C width of its content.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import nn

from rqrec.core.artifact import atomic_write, find, read_json, read_manifest, read_version, write_json
from rqrec.core.tensors import model_with, read_tensors
from rqrec.data.catalog import Catalog
from rqrec.knn.index import KnnIndex
from rqrec.models.architectures import AnyModel, architecture, build_model, name_of
from rqrec.models.sasrec import SasRec, SasRecConfig
from rqrec.retrieval.changes import CatalogueChanges
from rqrec.retrieval.defaults import BEAM_WIDTH
from rqrec.retrieval.ensemble import PROPOSALS, Ensemble, ExpertSettings
from rqrec.retrieval.experts import CodesExpert, DenseExpert, Expert, NeighbourExpert
from rqrec.retrieval.item_vectors import ItemVectors
from rqrec.retrieval.new_items import CONTENT, ContentExpert, Likeness, LiveRecommender, NewItemSettings
from rqrec.retrieval.retriever import Retriever
from rqrec.retrieval.vector_index import VectorIndex, index_of
from rqrec.tokenizer.loading import KeptTokenizer
from rqrec.tokenizer.semantic_ids import SemanticIdTable

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
EXPERTS_FILE = "experts.json"
NEW_ITEMS_FILE = "new_items.json"
EXPERTS = "experts"  # folder of the experts other than the model itself
EXPERT_NAME = re.compile(r"[a-z][a-z0-9_]*")
CODES = "codes"

ModelT = TypeVar("ModelT", bound=nn.Module)


class CodesModel(NamedTuple):
    """A model that generates semantic IDs, and the table of these IDs."""

    model: AnyModel
    table: SemanticIdTable
    tokenizer: KeptTokenizer | None = None
    """What made the table, for items that are added later; None if it was not kept."""


OtherExpert = CodesModel | SasRec | KnnIndex
UNTRAINED = ("neighbours", CONTENT)
TYPES: Mapping[type, str] = {CodesModel: "codes", SasRec: "dense", KnnIndex: "neighbours"}


class Live(NamedTuple):
    """How the catalogue that is served differs from that of the training."""

    trained: "RetrievalArtifact"
    """The model as it was trained."""
    changes: CatalogueChanges
    """All changes since."""
    available_N: NDArray[np.bool_]
    """The items that were not removed."""

    @property
    def known(self) -> NDArray[np.bool_]:
        """The items that the model was trained on, bool by item index."""
        return np.arange(len(self.available_N)) < len(self.trained.catalog)

    @property
    def has_new(self) -> bool:
        """Whether there are new items that may be recommended."""
        return bool(self.available_N[len(self.trained.catalog) :].any())


class RetrievalArtifact(NamedTuple):
    """All that recommends: a retrieval model, its semantic IDs, their catalogue, and the experts joined with it."""

    model: AnyModel
    table: SemanticIdTable
    catalog: Catalog
    exclude_seen: bool = True
    """Whether validation excluded the items of the history, and so whether recommendations do by default."""
    others: Mapping[str, OtherExpert] = MappingProxyType({})
    """The other experts by name; the model itself is the expert "codes"."""
    settings: Mapping[str, ExpertSettings] = MappingProxyType({CODES: ExpertSettings()})
    """How the experts are joined, by name."""
    tokenizer: KeptTokenizer | None = None
    """What made the table, for items that are added later; None if it was not kept."""
    vectors: ItemVectors | None = None
    """The vectors of all items that the tokenizers of all experts read; None if they were not kept."""
    new_items: NewItemSettings = NewItemSettings()
    """How items that are added after the training compete with the others."""
    live: Live | None = None
    """How the catalogue has changed since the training; None: not at all."""
    hash: str | None = None
    """The hash of the artefact that it was read from; None if it was not."""

    def __repr__(self) -> str:
        return f"RetrievalArtifact({len(self.catalog):,} items, experts {', '.join(self.types)})"

    @property
    def types(self) -> dict[str, str]:
        """The experts by name, each with its type: codes, dense or neighbours; content if there are new items."""
        new = {CONTENT: CONTENT} if self.live and self.live.has_new else {}
        return {CODES: CODES, **{name: TYPES[type(one)] for name, one in self.others.items()}, **new}

    @property
    def codes_models(self) -> dict[str, CodesModel]:
        """The experts that generate semantic IDs, by name."""
        first = CodesModel(self.model, self.table, self.tokenizer)
        return {CODES: first} | {
            name: one for name, one in self.others.items() if isinstance(one, CodesModel)
        }

    @property
    def as_trained(self) -> "RetrievalArtifact":
        """The model without the changes of its catalogue since the training."""
        return self if self.live is None else self.live.trained

    @property
    def models(self) -> list[nn.Module]:
        """The trained models: those of all experts but the neighbours."""
        others = (one.model if isinstance(one, CodesModel) else one for one in self.others.values())
        return [self.model, *(one for one in others if isinstance(one, nn.Module))]

    @property
    def needs_times(self) -> bool:
        """Whether a model was trained with time_gaps, so that histories need the times of their items."""
        return self._trained_with("time_gaps")

    @property
    def reads_users(self) -> bool:
        """Whether a model was trained with user_buckets, so that user ids make a difference."""
        return self._trained_with("user_buckets")

    def _trained_with(self, setting: str) -> bool:
        return any(bool(getattr(model.config, setting, 0)) for model in self.models)

    def select(self, words: Sequence[str] | None) -> list[str]:
        """See `select_experts`."""
        return select_experts(words, self.types)

    def index_of_expert(self, name: str, device: torch.device | str = "cpu") -> VectorIndex | None:
        """The index of a dense expert of a large catalogue: of the items of the training, which it recommends.

        None where scoring every item is fast: on a GPU, or with fewer items.
        """
        expert = self.as_trained.others.get(name)
        if not isinstance(expert, SasRec) or torch.device(device).type != "cpu":
            return None
        return index_of(expert)

    def retriever(self, beam_width: int = BEAM_WIDTH, device: torch.device | str = "cpu") -> Retriever:
        """The search with the model alone, which generates the items that it was trained on."""
        known_N = self.live.known if self.live and len(self.live.changes.added) else None
        return Retriever(self.model.to(device), self.table, beam_width, device, known_N)

    def ensemble(self, retriever: Retriever | None = None, experts: Sequence[str] | None = None) -> Ensemble:
        """The trained experts and neighbours, or those that `experts` mean (see `select`), joined.

        `retriever` is that of the model, whose device and beam width the other experts get too. Each proposes
        `PROPOSALS` items, or as many as the beam is wide if that is fewer.
        """
        retriever = retriever or self.retriever()
        width, device = retriever.beam_width, retriever.device

        def built(name: str) -> Expert:
            if name == CODES:
                return CodesExpert(retriever)
            match self.others[name]:
                case CodesModel(model, table, _):
                    return CodesExpert(Retriever(model.to(device), table, width, device, retriever.known_N))
                case SasRec() as model:
                    return DenseExpert(model.to(device), self.index_of_expert(name, device))
                case KnnIndex() as index:
                    return NeighbourExpert(index.to(device))

        chosen = {name: built(name) for name in self.select(experts) if name != CONTENT}
        return Ensemble(chosen, self.settings, min(PROPOSALS, width), device)

    def recommender(
        self, retriever: Retriever | None = None, experts: Sequence[str] | None = None
    ) -> Ensemble | LiveRecommender:
        """The recommender of all items that may be recommended, by all experts or those that `experts` mean."""
        retriever, names = retriever or self.retriever(), self.select(experts)
        if self.live is None:
            return self.ensemble(retriever, experts)
        known_N, available_N = (
            torch.from_numpy(mask_N).to(retriever.device)
            for mask_N in (self.live.known, self.live.available_N)
        )
        content, new_MD = None, self.live.changes.vectors_MD
        if CONTENT in names and self.vectors is not None and new_MD is not None:
            new_MC = self.vectors.content_of(new_MD)
            first_new, count = len(self.live.trained.catalog), len(new_MC)
            likeness = Likeness(
                (self.vectors.content, new_MC),
                self.settings[CONTENT].power,
                np.arange(first_new),
                retriever.device,
            )
            content = ContentExpert(likeness, np.arange(first_new, first_new + count))
        trained = [name for name in self.types if name != CONTENT]
        live = LiveRecommender(
            self.ensemble(retriever, trained), known_N, available_N, content, self.new_items.rate
        )
        return live.only(names)


def select_experts(words: Sequence[str] | None, types: Mapping[str, str]) -> list[str]:
    """The names of the experts that `words` mean: names, types, "trained" (all but neighbours), or "all".

    `types` are the experts by name, each with its type. None means all of them. Raises ValueError if a word means no
    expert.
    """
    chosen = set[str]()
    for word in ("all",) if words is None else words:
        found = [
            name
            for name, expert_type in types.items()
            if word in (name, expert_type, "all") or (word == "trained" and expert_type not in UNTRAINED)
        ]
        if not found:
            raise ValueError(
                f"There is no expert {word!r}; this model has {', '.join(types)}, all of them (all), or all but the "
                f"neighbours (trained)."
            )
        chosen.update(found)
    return [name for name in types if name in chosen]


def write_retrieval(folder: Path, artifact: RetrievalArtifact) -> None:
    """Write the model, its semantic-ID table, its catalogue and the other experts into `folder`."""
    _write_codes(folder, artifact.codes_models[CODES])
    artifact.catalog.write(folder)
    if artifact.vectors is not None:
        artifact.vectors.write(folder)
        write_json(folder / NEW_ITEMS_FILE, asdict(artifact.new_items))
    if not artifact.others:
        return
    for name, one in artifact.others.items():
        inside = folder / EXPERTS / name
        inside.mkdir(parents=True)
        if isinstance(one, CodesModel):
            _write_codes(inside, one)
        elif isinstance(one, SasRec):
            _write_model(inside, asdict(one.config), one)
        else:
            one.write(inside)
    joined = {
        name: {"type": expert_type, **asdict(artifact.settings[name])}
        for name, expert_type in artifact.types.items()
    }
    write_json(folder / EXPERTS_FILE, joined)


def read_retrieval(folder: Path) -> RetrievalArtifact:
    """Read a "retrieval" artefact, or the one in a run folder; the models are in evaluation mode.

    Raises ValueError if a file was changed, or does not fit the others or this version of rqrec.
    """
    return read_version(find(folder, "retrieval"), _read_retrieval)


def _read_retrieval(folder: Path) -> RetrievalArtifact:
    manifest = read_manifest(folder, "retrieval", verify=True)
    catalog = Catalog.read(folder)
    model, table, tokenizer = _read_codes(folder, catalog)
    vectors = ItemVectors.read(folder, len(catalog))
    kept: dict[str, Any] = {"tokenizer": tokenizer, "vectors": vectors, "hash": manifest.hash}
    if (folder / NEW_ITEMS_FILE).is_file():
        kept["new_items"] = _read_new_items(folder / NEW_ITEMS_FILE)
    exclude_seen = manifest.settings.get("exclude_seen", True)
    if not (folder / EXPERTS_FILE).is_file():
        return RetrievalArtifact(model, table, catalog, exclude_seen, **kept)
    others: dict[str, OtherExpert] = {}
    settings: dict[str, ExpertSettings] = {}
    for name, expert_type, joined in _read_settings(folder / EXPERTS_FILE):
        settings[name], inside = joined, folder / EXPERTS / name
        if name == CODES:
            continue
        if expert_type == "codes":
            others[name] = _read_codes(inside, catalog)
        elif expert_type == "dense":
            dense = others[name] = _read_model(inside, _build_sasrec)
            if dense.config.n_items != len(catalog):
                raise ValueError(
                    f"{inside} ranks {dense.config.n_items} items, but the catalogue has {len(catalog)}."
                )
        else:
            others[name] = KnnIndex.read(inside, len(catalog))
    return RetrievalArtifact(model, table, catalog, exclude_seen, others, settings, **kept)


def _read_new_items(path: Path) -> NewItemSettings:
    values: Any = read_json(path)
    try:
        return NewItemSettings(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}. Join the experts again with `rqrec join`.") from error


def _read_settings(path: Path) -> Iterator[tuple[str, str, ExpertSettings]]:
    """The name, the type and the settings of each expert."""
    values = read_json(path)
    advice = "Join the experts again with `rqrec join`."
    try:
        experts = [(name, dict(one)) for name, one in values.items()]
        if CODES not in values:
            raise ValueError(f"it has no expert {CODES!r}")
        for name, one in experts:
            if (
                not EXPERT_NAME.fullmatch(name)
                or (expert_type := one.pop("type", None)) not in TYPES.values()
            ):
                raise ValueError(f"it has an expert {name!r} of no known type")
            yield name, expert_type, ExpertSettings(**one)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not say how experts are joined: {error}. {advice}") from error


def _write_codes(folder: Path, codes: CodesModel) -> None:
    config = codes.model.config
    _write_model(folder, {"architecture": name_of(config), **asdict(config)}, codes.model)
    codes.table.write(folder)
    if codes.tokenizer is not None:
        codes.tokenizer.write(folder)


def _read_codes(folder: Path, catalog: Catalog) -> CodesModel:
    model, table = _read_model(folder, _build), SemanticIdTable.read(folder)
    if table.item_ids != catalog.id_map:
        raise ValueError(f"{folder}: the semantic-ID table and the catalogue list different items.")
    table = replace(table, item_ids=catalog.id_map)  # equal: keep only one in memory
    return CodesModel(model, table, KeptTokenizer.read(folder))


def _build(config: dict[str, Any]) -> AnyModel:
    sizes = dict(config)
    return build_model(architecture(str(sizes.pop("architecture", ""))).config(**sizes))


def expert_types(folder: Path) -> dict[str, str]:
    """The experts of a "retrieval" artefact by name, each with its type, without reading the models."""
    if not (folder / EXPERTS_FILE).is_file():
        return {CODES: CODES}
    return {name: expert_type for name, expert_type, _ in _read_settings(folder / EXPERTS_FILE)}


def needs_times(folder: Path) -> bool:
    """Whether a model of a "retrieval" artefact was trained with time_gaps, read from the configurations alone."""
    configs = map(read_json, [folder / CONFIG_FILE, *folder.glob(f"{EXPERTS}/*/{CONFIG_FILE}")])
    return any(isinstance(config, dict) and bool(config.get("time_gaps")) for config in configs)


class SasRecArtifact(NamedTuple):
    """A SASRec model and the catalogue of the items that it ranks."""

    model: SasRec
    catalog: Catalog


def write_sasrec(folder: Path, artifact: SasRecArtifact) -> None:
    """Write the model and its catalogue into `folder`."""
    _write_model(folder, asdict(artifact.model.config), artifact.model)
    artifact.catalog.write(folder)


def read_sasrec(folder: Path) -> SasRecArtifact:
    """Read a "sasrec" artefact, or the one in a run folder; the model is in evaluation mode.

    Raises ValueError if a file was changed, or does not fit the others or this version of rqrec.
    """
    return read_version(find(folder, "sasrec"), _read_sasrec)


def _read_sasrec(folder: Path) -> SasRecArtifact:
    read_manifest(folder, "sasrec", verify=True)
    return SasRecArtifact(_read_model(folder, _build_sasrec), Catalog.read(folder))


def _build_sasrec(config: dict[str, Any]) -> SasRec:
    return SasRec(SasRecConfig(**config))


def _write_model(folder: Path, config: Mapping[str, Any], model: nn.Module) -> None:
    write_json(folder / CONFIG_FILE, dict(config))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(folder / WEIGHTS_FILE) as file:
        file.write(safetensors.torch.save(weights))


def _read_model(folder: Path, build: Callable[[dict[str, Any]], ModelT]) -> ModelT:
    """The model in `folder`, which `build` makes from its configuration, in evaluation mode."""
    advice = "Train the model again, or use the version of rqrec that its manifest names."
    config = read_json(folder / CONFIG_FILE)
    if not isinstance(config, dict):
        raise ValueError(
            f"{folder / CONFIG_FILE} holds {type(config).__name__} instead of settings. {advice}"
        )
    weights = read_tensors(folder / WEIGHTS_FILE)
    try:
        return model_with(lambda: build(config), weights, folder / WEIGHTS_FILE)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{folder / CONFIG_FILE} does not match {WEIGHTS_FILE}, or is from another version of rqrec: {error} "
            f"{advice}"
        ) from error
