"""A trained retrieval model on disk: one folder holds all that recommending needs."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError

from rqrec.core.artifact import atomic_write, find, read_json, read_manifest, write_json
from rqrec.data.catalog import Catalog
from rqrec.knn.index import KnnIndex
from rqrec.models.architectures import AnyModel, architecture, build_model, name_of
from rqrec.models.interface import RetrievalModel
from rqrec.models.sasrec import SasRec, SasRecConfig
from rqrec.retrieval.knn_mixture import KnnMixture
from rqrec.tokenizer.semantic_ids import SemanticIdTable

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class Checkpoint(NamedTuple):
    """A model with the semantic IDs that it generates and the items that they stand for.

    `memory` joins the model where it recommends (see `generator`).
    """

    model: AnyModel
    table: SemanticIdTable
    catalog: Catalog
    memory: KnnIndex | None = None

    def generator(self, device: torch.device | str = "cpu") -> RetrievalModel[Any]:
        """What recommendations come from: the model, or the model and the memory as one."""
        if self.memory is None:
            return self.model
        return KnnMixture(self.model, self.memory, torch.from_numpy(self.table.codes_NL).to(device).long())


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write configuration, weights, semantic-ID table and catalogue into `folder`."""
    config = checkpoint.model.config
    write_json(folder / CONFIG_FILE, {"architecture": name_of(config), **asdict(config)})
    weights = {name: tensor.contiguous() for name, tensor in checkpoint.model.state_dict().items()}
    with atomic_write(folder / WEIGHTS_FILE) as file:
        file.write(safetensors.torch.save(weights))
    checkpoint.table.write(folder)
    checkpoint.catalog.write(folder)
    if checkpoint.memory:
        checkpoint.memory.write(folder)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a "retrieval" artefact, or the one inside the folder of a run; the model is in evaluation mode.

    Raises ValueError where the folder was changed, or where its table and its catalogue disagree on the items.
    """
    folder = find(folder, "retrieval")
    read_manifest(folder, "retrieval", verify=True)
    config: dict[str, Any] = read_json(folder / CONFIG_FILE)
    try:
        model = build_model(architecture(config.pop("architecture", "")).config(**config))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG_FILE} is of another version of rqrec: {error}") from error
    try:
        model.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS_FILE))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{folder / WEIGHTS_FILE} does not fit {CONFIG_FILE} beside it, or is of another version of rqrec. Train "
            f"it again, or use the version of its manifest. ({error})"
        ) from error
    table, catalog = SemanticIdTable.read(folder), Catalog.read(folder)
    if table.item_ids != catalog.id_map:
        raise ValueError(f"{folder}: the semantic-ID table and the catalogue list different items.")
    table = replace(table, item_ids=catalog.id_map)  # one map in memory, not two equal ones
    return Checkpoint(model.eval(), table, catalog, KnnIndex.read(folder, len(table)))


class SasRecCheckpoint(NamedTuple):
    """A model with the items that it ranks."""

    model: SasRec
    catalog: Catalog


def write_sasrec(folder: Path, checkpoint: SasRecCheckpoint) -> None:
    """Write configuration, weights and catalogue into `folder`."""
    write_json(folder / CONFIG_FILE, asdict(checkpoint.model.config))
    weights = {name: tensor.contiguous() for name, tensor in checkpoint.model.state_dict().items()}
    with atomic_write(folder / WEIGHTS_FILE) as file:
        file.write(safetensors.torch.save(weights))
    checkpoint.catalog.write(folder)


def read_sasrec(folder: Path) -> SasRecCheckpoint:
    """Read a "sasrec" artefact, or the one inside the folder of a run; the model is in evaluation mode.

    Raises ValueError where the folder was changed or its files do not fit each other.
    """
    folder = find(folder, "sasrec")
    read_manifest(folder, "sasrec", verify=True)
    config: dict[str, Any] = read_json(folder / CONFIG_FILE)
    try:
        model = SasRec(SasRecConfig(**config))
        model.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS_FILE))
    except (TypeError, ValueError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{folder / CONFIG_FILE} is of another version of rqrec: {error}") from error
    return SasRecCheckpoint(model.eval(), Catalog.read(folder))
