"""What the dataset of a model tells, where it lies near: its sequences, and how often each item was taken."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rqrec.core.artifact import find, find_input, read_manifest
from rqrec.data.protocols import protocol_of
from rqrec.data.sequences import Sequences
from rqrec.data.splits import get_protocol


def dataset_sequences(model: Path) -> Sequences | None:
    """The sequences of the dataset that a model was trained on; None if it does not lie near."""
    dataset = find_input(find(model, "retrieval"), "dataset")
    return None if dataset is None else Sequences.read(dataset)


def model_protocol(model: Path) -> str:
    """The evaluation protocol that a model was trained with."""
    return protocol_of(read_manifest(find(model, "retrieval"))) or "leave_one_out"


def training_counts(model: Path, n_items: int) -> NDArray[np.int64] | None:
    """How often each item was taken in training, int64 [N], if the dataset lies near the model; else None."""
    sequences = dataset_sequences(model)
    if sequences is None:
        return None
    train = get_protocol(model_protocol(model))(sequences).train
    return np.bincount(train.items, minlength=n_items)
