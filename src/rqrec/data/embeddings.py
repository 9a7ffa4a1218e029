"""Item embeddings on disk: one row per item, memory-mapped, validated before use.

Shapes: N items, M selected items, D dimensions, C of them content.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rqrec.core.artifact import MANIFEST, check_inputs, file_hash, find, read_manifest
from rqrec.core.errors import first_few
from rqrec.core.regular_file import regular_file
from rqrec.data.protocols import check_protocol, protocol_of

log = logging.getLogger(__name__)

EMBEDDINGS_FILE = "item_embeddings.npy"
LARGEST = np.float32(1e15)  # from here on, squares of float32 may overflow in sums
IS_TRAIN_FILE = "is_train.npy"
ROWS_PER_CHECK = 65_536


@dataclass(frozen=True)
class RowSubset:
    """A lazy view [M, D] of some rows of a memory-mapped matrix; rows are read when indexed.

    `rows` int64 [M], ascending. Index with a slice or an array of positions in `rows`.
    """

    vectors_ND: NDArray[np.floating]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: slice | NDArray[np.int64]) -> NDArray[np.floating]:
        return self.vectors_ND[self.rows[positions]]

    @property
    def shape(self) -> tuple[int, int]:
        """[M, D]."""
        return len(self.rows), self.vectors_ND.shape[1]

    @property
    def ndim(self) -> int:
        """2."""
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the matrix."""
        return self.vectors_ND.dtype


class ItemEmbeddings(NamedTuple):
    """The training input of a tokenizer."""

    vectors: NDArray[np.floating]
    """Any float dtype [N, D], read-only and memory-mapped."""
    is_train: NDArray[np.bool_] | None
    """bool [N], True for training items, False for evaluation items; None: all items train."""

    def train_and_eval(self) -> tuple[RowSubset, RowSubset]:
        """Training rows and evaluation rows (none if all items train)."""
        rows = np.arange(len(self.vectors))
        train = np.ones(len(rows), dtype=bool) if self.is_train is None else self.is_train
        return RowSubset(self.vectors, rows[train]), RowSubset(self.vectors, rows[~train])


def read_embeddings(folder: Path, *, do_eval: bool = False) -> ItemEmbeddings:
    """Read the embeddings of an artefact of type "embeddings", or of a plain folder.

    A plain folder contains `item_embeddings.npy` float [N, D] and optionally `is_train.npy` bool [N]. With
    `do_eval` (evaluate the tokenizer on held-out items), `is_train.npy` is required.

    Raises FileNotFoundError if a file is missing, ValueError on a wrong shape or dtype and on NaN or infinite
    values.
    """
    folder = _folder_of(folder)
    vectors = read_vectors(folder / EMBEDDINGS_FILE)
    path = folder / IS_TRAIN_FILE
    if not path.is_file():
        if do_eval:
            raise FileNotFoundError(
                f"{folder} has no {IS_TRAIN_FILE} (bool [num_items]), so there are no items to evaluate on. "
                f"Add it, or set train.do_eval=False."
            )
        return ItemEmbeddings(vectors, None)
    return ItemEmbeddings(vectors, _read_is_train(path, len(vectors)))


def open_vectors(folder: Path) -> NDArray[np.floating]:
    """Memory-map the array of a folder that `read_embeddings` has already validated, without reading it again."""
    return _load(_folder_of(folder) / EMBEDDINGS_FILE, "an array of floats")


def _folder_of(folder: Path) -> Path:
    if (Path(folder) / EMBEDDINGS_FILE).is_file():
        return Path(folder)
    try:
        return find(folder, "embeddings")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{folder} has no {EMBEDDINGS_FILE}: put an array [num_items, dim] of floats there, or create "
            f"one from a dataset with `rqrec embed`."
        ) from error


def embeddings_hash(folder: Path) -> str:
    """Hash of an "embeddings" artefact or of a plain folder's array, for the `inputs` of derived artefacts."""
    if is_plain(folder):
        return file_hash(Path(folder) / EMBEDDINGS_FILE)
    return read_manifest(find(folder, "embeddings"), "embeddings").hash


def check_embeddings_of(folder: Path, dataset: Path) -> None:
    """Refuse an "embeddings" artefact that was made from another dataset; a plain folder does not say.

    Raises ValueError that names both.
    """
    if not is_plain(folder):
        check_inputs(find(folder, "embeddings"), {"dataset": find(dataset, "dataset")})


def embeddings_protocol(folder: Path) -> str | None:
    """The protocol that collaborative vectors were learned with; None without any. A plain folder does not say."""
    return None if is_plain(folder) else protocol_of(read_manifest(find(folder, "embeddings"), "embeddings"))


def is_plain(folder: Path) -> bool:
    """Whether a folder holds embeddings without a manifest, so that nothing says how they were made."""
    return (Path(folder) / EMBEDDINGS_FILE).is_file() and not (Path(folder) / MANIFEST).is_file()


def content_of(folder: Path, dataset: Path, protocol: str, n_items: int) -> NDArray[np.floating]:
    """The content vectors of a dataset's items, memory-mapped.

    Raises ValueError if the embeddings are of another dataset, were learned with another protocol, or have another
    number of rows than `n_items`.
    """
    check_embeddings_of(folder, dataset)
    check_protocol(folder, embeddings_protocol(folder), protocol)
    content_NC = read_content_vectors(folder)
    if len(content_NC) != n_items:
        raise ValueError(
            f"{folder} has embeddings of {len(content_NC)} items, but there are {n_items} items. Make them from this "
            f"dataset."
        )
    return content_NC


def read_content_vectors(folder: Path) -> NDArray[np.floating]:
    """The content vectors, memory-mapped: without the collaborative vectors, if any were appended."""
    vectors = read_embeddings(folder).vectors
    if is_plain(folder):
        return vectors
    joined = read_manifest(find(folder, "embeddings"), "embeddings").settings.get("collaborative")
    return vectors[:, : vectors.shape[1] - joined["width"]] if joined else vectors


def _load(path: Path, what: str) -> NDArray[Any]:
    try:
        array = np.load(regular_file(path), mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # NumPy raises whatever the damaged header leads to
        raise ValueError(
            f"{path} is not {what}, or it is truncated. Write it with numpy.save, without Python objects."
        ) from error
    if not isinstance(array, np.memmap):
        array.close()
        raise ValueError(f"{path} is an archive of arrays (.npz): save the one array with numpy.save.")
    if more := path.stat().st_size - array.offset - array.nbytes:
        raise ValueError(
            f"{path} has {more} bytes behind its array, perhaps another one: save one array alone with numpy.save."
        )
    return array


def read_vectors(path: Path) -> NDArray[np.floating]:
    """A memory-mapped float array [N, D], with a warning if rows are zero. Raises as `read_with_zeros`."""
    vectors, zero = read_with_zeros(path)
    if zero:
        log.warning(
            "%s has %d rows of zeros (the first is row %d): items without content, which will share their codes.",
            path, len(zero), zero[0],
        )  # fmt: skip
    return vectors


def read_with_zeros(path: Path) -> tuple[NDArray[np.floating], list[int]]:
    """A memory-mapped float array [N, D], and which of its rows are zero.

    Raises ValueError on a wrong shape or dtype and on NaN or infinity.
    """
    vectors = _load(path, "an array of floats")
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise ValueError(
            f"{path} has the shape {list(vectors.shape)}; a non-empty [num_items, dim] is required."
        )
    if vectors.dtype.kind != "f" or vectors.dtype.itemsize > 8:
        raise ValueError(
            f"{path} holds {vectors.dtype}; float16, float32 or float64 is required. "
            f"Convert it with .astype('float32')."
        )
    bad: list[int] = []
    zero: list[int] = []
    for start in range(0, len(vectors), ROWS_PER_CHECK):
        part = vectors[start : start + ROWS_PER_CHECK]
        bad += (np.flatnonzero(~(np.abs(part) < LARGEST).all(axis=1)) + start).tolist()
        zero += (np.flatnonzero(~part.any(axis=1)) + start).tolist()
    if bad:
        raise ValueError(
            f"{path} has NaN, infinite values or values of {LARGEST:g} and more in row {first_few(bad)}. Scale or "
            f"correct them."
        )
    return vectors, zero


def _read_is_train(path: Path, items: int) -> NDArray[np.bool_]:
    is_train = np.array(_load(path, "a bool array"))
    if is_train.dtype != np.bool_:
        raise ValueError(f"{path} holds {is_train.dtype}; bool is required. Convert it with .astype(bool).")
    if is_train.shape != (items,):
        raise ValueError(
            f"{path} has the shape {list(is_train.shape)}, but {EMBEDDINGS_FILE} has {items} rows: "
            f"[{items}] is required."
        )
    if not is_train.any():
        raise ValueError(f"{path} has no True: at least one training item is required.")
    return is_train
