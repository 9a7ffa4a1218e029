"""The file of the sequences: whatever is in it, no wrong number comes out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rqrec.core.artifact import create
from rqrec.data.dataset import Dataset
from tests.tiny import N_ITEMS, tiny_dataset

Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda arrays: {"items": arrays["items"] + N_ITEMS}, "items outside of the 48 of the catalogue"),
        (lambda arrays: {"items": arrays["items"] - 1}, "items outside of the 48 of the catalogue"),
        (lambda arrays: {"timestamps": -arrays["timestamps"]}, "negative times"),
        (
            lambda arrays: {"items": arrays["items"] * np.nan},
            "items has 1 dimensions of float64, but must",
        ),
        (
            lambda arrays: {"timestamps": arrays["timestamps"] * np.nan},
            "timestamps has 1 dimensions of float64",
        ),
        (
            lambda arrays: {"timestamps": arrays["timestamps"][:, None]},
            "timestamps has 2 dimensions of int64",
        ),
        (lambda arrays: {"offsets": arrays["offsets"][::-1]}, "offsets must start with 0 and not decrease"),
        (lambda arrays: {"offsets": arrays["offsets"][:-1]}, "disagree on the number of interactions"),
    ],
)
def test_a_damaged_file_is_refused(change: Callable[[Arrays], Arrays], problem: str, tmp_path: Path) -> None:
    dataset = tiny_dataset(12)
    with create(tmp_path / "dataset", "dataset", settings={}, inputs={}) as target:
        dataset.catalog.write(target)
        dataset.sequences.write(target)
        with np.load(target / "sequences.npz") as file:
            arrays = dict(file)
        np.savez(target / "sequences.npz", **{**arrays, **change(arrays)})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"damaged.*{problem}"):
        Dataset.read(tmp_path / "dataset")
