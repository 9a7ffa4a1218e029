"""Reading arrays that others may have written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from rqrec.core.errors import first_line


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file, by name. Raises OSError, or ValueError that names a damaged file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except OSError:
        raise
    except Exception as error:  # zip, zlib and NumPy's headers raise whatever the damage leads to
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}).") from error


def read_safetensors(path: Path, only: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file by name, or only some of these names, as far as it has them.

    Torch is not loaded. Raises ValueError that names a damaged or missing file.
    """
    with safetensors_of(path), safetensors.safe_open(path, framework="numpy") as arrays:
        return {name: arrays.get_tensor(name) for name in arrays.keys() if not only or name in only}  # noqa: SIM118


@contextmanager
def safetensors_of(path: Path) -> Iterator[None]:
    """While a safetensors file is read: raises ValueError that names it if it is damaged or missing."""
    try:
        yield
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or missing ({first_line(error)}). Fetch or make it again."
        ) from error
