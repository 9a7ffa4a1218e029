"""How often items were taken in training, as a kNN index on disk knows it, read without the index.

Shapes: N items.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rqrec.core.arrays import read_safetensors

NEIGHBOURS_FILE = "knn.safetensors"
COUNTS = "counts"


def read_counts(folder: Path) -> NDArray[np.int64] | None:
    """The counts of the index in a folder, int64 [N]; None in older artefacts."""
    return read_safetensors(folder / NEIGHBOURS_FILE, [COUNTS]).get(COUNTS)
