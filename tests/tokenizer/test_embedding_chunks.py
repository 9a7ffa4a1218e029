import numpy as np
import pytest
import torch

from rqrec.tokenizer.embedding_chunks import check_shape, chunks, sample_rows


def test_chunks_cover_the_rows_in_order_as_float32():
    x = np.arange(20, dtype=np.float16).reshape(10, 2)
    parts = list(chunks(x, 4))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert torch.equal(torch.cat(parts), torch.from_numpy(x).float())
    assert all(part.dtype == torch.float32 for part in parts)


def test_writing_to_a_chunk_does_not_change_the_memory_map(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((6, 3), dtype=np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    for part in chunks(x, 4):
        part.zero_()
    assert (np.load(tmp_path / "x.npy") == 1).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_are_named(bad):
    x = np.ones((30, 2), dtype=np.float32)
    x[[17, 19, 25], 1] = bad
    with pytest.raises(ValueError, match="row 17, 19: "):
        list(chunks(x, 10))
    x[10:20, 0] = bad
    with pytest.raises(ValueError, match="row 10, 11, 12, 13, 14 and 5 more nearby"):
        list(chunks(x, 10))


def test_large_but_finite_values_pass():
    assert len(next(chunks(np.full((4, 2), 3e38, dtype=np.float32), 10))) == 4


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((3, 2), dtype=np.int64), "dtype int64"),
        (torch.ones(3, 2, dtype=torch.int32), "dtype torch.int32"),
        (np.array([[object()]]), "dtype object"),
        (np.ones(3), r"shape \(3,\)"),
        (np.ones((0, 2)), "empty"),
        (np.ones((3, 2)), "2 dimensions, but the tokenizer expects 5"),
    ],
)
def test_input_other_than_a_float_matrix_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        check_shape(x, 5)


def test_a_sample_has_distinct_rows_in_order():
    x = torch.arange(100.0)[:, None]
    rows = sample_rows(x, 10, torch.Generator().manual_seed(0))[:, 0]
    assert len(rows.unique()) == 10
    assert torch.equal(rows, rows.sort().values)
    same = sample_rows(x.numpy(), 10, torch.Generator().manual_seed(0))[:, 0]
    assert np.array_equal(same, rows.numpy())
    assert sample_rows(x, 100, torch.Generator()) is x
