"""Reading NumPy archives that others may have written."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file, by name. Raises OSError, or ValueError that names a damaged file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except OSError:
        raise
    except Exception as error:  # zip, zlib and NumPy's headers raise whatever the damage leads to
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}).") from error
