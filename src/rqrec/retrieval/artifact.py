"""Trained models on disk: one folder contains everything needed to recommend."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import safetensors.torch
from torch import nn

from rqrec.core.artifact import atomic_write, find, read_json, read_manifest, read_version, write_json
from rqrec.core.tensors import check_names_and_shapes, read_tensors
from rqrec.data.catalog import Catalog
from rqrec.knn.index import KnnIndex
from rqrec.models.architectures import AnyModel, architecture, build_model, name_of
from rqrec.models.sasrec import SasRec, SasRecConfig
from rqrec.retrieval.retriever import BEAM_WIDTH, Retriever
from rqrec.tokenizer.semantic_ids import SemanticIdTable

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

ModelT = TypeVar("ModelT", bound=nn.Module)


class RetrievalArtifact(NamedTuple):
    """A retrieval model, the semantic IDs that it generates, and the catalogue of their items.

    `knn` is mixed with the model when it recommends (see `rqrec.retrieval.knn_mixture`).
    `exclude_seen`: whether validation excluded the items of the history, and so whether recommendations exclude them
    by default.
    """

    model: AnyModel
    table: SemanticIdTable
    catalog: Catalog
    knn: KnnIndex | None = None
    exclude_seen: bool = True

    def retriever(self, beam_width: int = BEAM_WIDTH) -> Retriever:
        """The recommender of the model and, if there is one, its kNN index."""
        return Retriever(self.model, self.table, beam_width, knn=self.knn)


def write_retrieval(folder: Path, artifact: RetrievalArtifact) -> None:
    """Write the model, its semantic-ID table, its catalogue and its kNN index into `folder`."""
    config = artifact.model.config
    _write_model(folder, {"architecture": name_of(config), **asdict(config)}, artifact.model)
    artifact.table.write(folder)
    artifact.catalog.write(folder)
    if artifact.knn:
        artifact.knn.write(folder)


def read_retrieval(folder: Path) -> RetrievalArtifact:
    """Read a "retrieval" artefact, or the one in a run folder; the model is in evaluation mode.

    Raises ValueError if a file was changed, or does not fit the others or this version of rqrec.
    """
    return read_version(find(folder, "retrieval"), _read_retrieval)


def _read_retrieval(folder: Path) -> RetrievalArtifact:
    model = _read_model(folder, "retrieval", _build)
    table, catalog = SemanticIdTable.read(folder), Catalog.read(folder)
    if table.item_ids != catalog.id_map:
        raise ValueError(f"{folder}: the semantic-ID table and the catalogue list different items.")
    table = replace(table, item_ids=catalog.id_map)  # equal: keep only one in memory
    exclude_seen = read_manifest(folder).settings.get("exclude_seen", True)
    return RetrievalArtifact(model, table, catalog, KnnIndex.read(folder, len(table)), exclude_seen)


def _build(config: dict[str, Any]) -> AnyModel:
    sizes = dict(config)
    return build_model(architecture(str(sizes.pop("architecture", ""))).config(**sizes))


def needs_times(folder: Path) -> bool:
    """Whether the model of a "retrieval" artefact was trained with time_gaps, read from its configuration alone."""
    config = read_json(folder / CONFIG_FILE)
    return isinstance(config, dict) and bool(config.get("time_gaps"))


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
    model = _read_model(folder, "sasrec", lambda config: SasRec(SasRecConfig(**config)))
    return SasRecArtifact(model, Catalog.read(folder))


def _write_model(folder: Path, config: Mapping[str, Any], model: nn.Module) -> None:
    write_json(folder / CONFIG_FILE, dict(config))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(folder / WEIGHTS_FILE) as file:
        file.write(safetensors.torch.save(weights))


def _read_model(folder: Path, artifact_type: str, build: Callable[[dict[str, Any]], ModelT]) -> ModelT:
    """Verify an artefact and load its model, which `build` makes from the configuration, in evaluation mode."""
    read_manifest(folder, artifact_type, verify=True)
    advice = "Train the model again, or use the version of rqrec that its manifest names."
    config = read_json(folder / CONFIG_FILE)
    if not isinstance(config, dict):
        raise ValueError(
            f"{folder / CONFIG_FILE} holds {type(config).__name__} instead of settings. {advice}"
        )
    weights = read_tensors(folder / WEIGHTS_FILE)
    try:
        check_names_and_shapes(lambda: build(config), weights, folder / WEIGHTS_FILE)
        model = build(config)
        model.load_state_dict(weights)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{folder / CONFIG_FILE} does not match {WEIGHTS_FILE}, or is from another version of rqrec: {error} "
            f"{advice}"
        ) from error
    return model.eval()
