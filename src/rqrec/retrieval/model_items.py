"""What lies near a model tells of its items without reading the model: how often each was taken, and all texts.

Shapes: N items of the catalogue.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rqrec.core.artifact import find, find_input, read_manifest, read_version
from rqrec.data.catalog import Catalog
from rqrec.data.protocols import protocol_of
from rqrec.data.sequences import Sequences
from rqrec.data.splits import get_protocol
from rqrec.knn.counts import NEIGHBOURS_FILE, read_counts
from rqrec.retrieval.changes import current_version, read_changes


def dataset_sequences(model: Path) -> Sequences | None:
    """The sequences of the dataset that a model was trained on; None if it does not lie near."""
    dataset = find_input(find(model, "retrieval"), "dataset")
    return None if dataset is None else Sequences.read(dataset)


def model_protocol(model: Path) -> str:
    """The evaluation protocol that a model was trained with."""
    return protocol_of(read_manifest(find(model, "retrieval"))) or "leave_one_out"


def training_counts(model: Path, n_items: int) -> NDArray[np.int64] | None:
    """How often each item was taken in training, int64 [N]; None if neither neighbours nor a dataset near tell."""
    for path in sorted(find(model, "retrieval").glob(f"*/*/{NEIGHBOURS_FILE}")):
        if (counts_N := read_counts(path.parent)) is not None:
            return np.pad(counts_N, (0, n_items - len(counts_N)))
    sequences = dataset_sequences(model)
    if sequences is None:
        return None
    train = get_protocol(model_protocol(model))(sequences).train
    return np.bincount(train.items, minlength=n_items)


class ModelItems(NamedTuple):
    """The items of a model with its current catalogue."""

    catalog: Catalog
    available_N: NDArray[np.bool_]
    """Those that may be recommended."""
    counts_N: NDArray[np.int64] | None
    """See `training_counts`."""


def read_items(model: Path) -> ModelItems:
    """The items of a "retrieval" artefact, or of the one in a run folder, without reading its models."""

    def read(folder: Path) -> ModelItems:
        read_manifest(folder, "retrieval")
        changes = read_changes(folder, current_version(folder))
        catalog = changes.catalog(Catalog.read(folder))
        return ModelItems(catalog, changes.available(len(catalog)), training_counts(folder, len(catalog)))

    return read_version(find(model, "retrieval"), read)
