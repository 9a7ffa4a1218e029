from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rqrec.data.embeddings import read_embeddings


def write(folder: Path, vectors: NDArray, is_train: NDArray | None = None) -> Path:
    np.save(folder / "item_embeddings.npy", vectors)
    if is_train is not None:
        np.save(folder / "is_train.npy", is_train)
    return folder


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_plain_folder_is_memory_mapped(tmp_path: Path, dtype: str) -> None:
    vectors = np.arange(12, dtype=dtype).reshape(4, 3)
    found = read_embeddings(write(tmp_path, vectors, np.array([True, False, True, True])), do_eval=True)
    assert isinstance(found.vectors, np.memmap)
    assert found.vectors.dtype == dtype
    np.testing.assert_array_equal(found.vectors, vectors)
    assert found.is_train is not None
    assert found.is_train.tolist() == [True, False, True, True]


def test_evaluation_requires_is_train(tmp_path: Path) -> None:
    write(tmp_path, np.ones((4, 3), dtype="float32"))
    assert read_embeddings(tmp_path).is_train is None
    with pytest.raises(FileNotFoundError, match=r"no is_train.npy .* set train.do_eval=False"):
        read_embeddings(tmp_path, do_eval=True)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"has no item_embeddings.npy: put an array \[num_items, dim\]"
    ):
        read_embeddings(tmp_path)


@pytest.mark.parametrize(
    ("vectors", "problem"),
    [
        (np.ones(4), r"the shape \[4\]; a non-empty \[num_items, dim\] is required"),
        (np.ones((0, 3)), r"the shape \[0, 3\]"),
        (np.ones((4, 0)), r"the shape \[4, 0\]"),
        (np.ones((4, 3), dtype="int64"), "holds int64; float16, float32 or float64 is required"),
        (np.array([[None, {}]], dtype=object), "without Python objects"),
        (
            np.array([[1.0, 2], [np.nan, 3], [1, 2], [np.inf, 0]]),
            "NaN, infinite values or .* in row 1, 3. Scale",
        ),
        (np.array([[1.0, 2], [1e300, 3], [-1e15, 0]]), "values of 1e\\+15 and more in row 1, 2. Scale"),
    ],
)
def test_invalid_vectors_are_refused(tmp_path: Path, vectors: NDArray, problem: str) -> None:
    np.save(tmp_path / "item_embeddings.npy", vectors, allow_pickle=True)
    with pytest.raises(ValueError, match=problem):
        read_embeddings(tmp_path)


def test_a_file_of_other_than_one_array_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, np.ones((3, 2), dtype=np.float32)) / "item_embeddings.npy"
    one = path.read_bytes()
    path.write_bytes(one + one)
    with pytest.raises(ValueError, match=f"item_embeddings.npy has {len(one)} bytes behind its array"):
        read_embeddings(tmp_path)
    np.savez(tmp_path / "x.npz", np.ones((3, 2)))
    (tmp_path / "x.npz").replace(path)
    with pytest.raises(ValueError, match=r"item_embeddings.npy is an archive of arrays"):
        read_embeddings(tmp_path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, np.ones((100, 3))) / "item_embeddings.npy"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"item_embeddings.npy is not an array of floats"):
        read_embeddings(tmp_path)


@pytest.mark.parametrize(
    ("is_train", "problem"),
    [
        (np.ones(3, dtype=bool), r"the shape \[3\], but item_embeddings.npy has 4 rows"),
        (np.ones(4, dtype="int64"), "holds int64; bool is required"),
        (np.zeros(4, dtype=bool), "no True"),
    ],
)
def test_an_invalid_is_train_is_refused(tmp_path: Path, is_train: NDArray, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_embeddings(write(tmp_path, np.ones((4, 3)), is_train))


def test_rows_of_zeros_raise_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vectors = np.ones((5, 3), dtype=np.float32)
    vectors[[1, 4]] = 0
    np.save(tmp_path / "item_embeddings.npy", vectors)
    assert len(read_embeddings(tmp_path).vectors) == 5
    assert "2 rows of zeros (the first is row 1)" in caplog.text


def test_training_and_evaluation_rows_are_read_lazily(tmp_path: Path) -> None:
    vectors = np.arange(12, dtype="float16").reshape(4, 3)
    train, held_out = read_embeddings(
        write(tmp_path, vectors, np.array([True, False, True, False]))
    ).train_and_eval()
    assert isinstance(train.vectors_ND, np.memmap)
    assert (train.shape, train.ndim, train.dtype) == ((2, 3), 2, np.float16)
    np.testing.assert_array_equal(train[:], vectors[[0, 2]])
    np.testing.assert_array_equal(held_out[np.array([1])], vectors[[3]])


def test_without_is_train_every_row_trains(tmp_path: Path) -> None:
    train, held_out = read_embeddings(write(tmp_path, np.ones((4, 3), dtype="float32"))).train_and_eval()
    assert (len(train), len(held_out)) == (4, 0)


@pytest.mark.parametrize("shape", ["(-2, 3)", "(2, 3", "(2, -3)", "('a', 3)", "(2, 3, {})", "(2.5, 3)"])
def test_a_damaged_header_is_refused_with_the_file(shape, tmp_path):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    head = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    (tmp_path / "item_embeddings.npy").write_bytes(head + bytes(24))
    with pytest.raises(
        ValueError, match=r"item_embeddings\.npy is not an array of floats, or it is truncated"
    ):
        read_embeddings(tmp_path)
