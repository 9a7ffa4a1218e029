"""The most similar vectors of a few queries."""

import numpy as np
import pytest

from rqrec.data import nearest as module
from rqrec.data.cooccurrence import append_collaborative, from_similar_items
from rqrec.data.nearest import nearest, unit


@pytest.mark.parametrize("block_rows", [1, 3, 7, 40, 64])
@pytest.mark.parametrize("count", [1, 5, 40, 99])
def test_the_nearest_are_those_of_all_cosines(
    block_rows: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(module, "BLOCK_CELLS", 90)
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(40, 3)).astype(np.float16), rng.normal(size=(11, 3))
    vectors[9] = 0
    found = nearest(queries, vectors, count)
    cosines = unit(queries) @ unit(vectors).T
    expected = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    assert found.rows_MK.tolist() == expected.tolist()
    assert np.allclose(found.cosines_MK, np.take_along_axis(cosines, expected, 1), atol=1e-6)


def test_of_equal_vectors_the_first_is_the_nearest() -> None:
    assert nearest(np.ones((1, 2)), np.ones((5, 2)), 2).rows_MK.tolist() == [[0, 1]]


def test_a_new_item_gets_the_collaborative_vector_that_an_item_without_any_has() -> None:
    rng = np.random.default_rng(0)
    content, collaborative = rng.normal(size=(30, 6)), unit(rng.normal(size=(30, 4)))
    collaborative[-1] = 0  # no interactions
    together = append_collaborative(content, collaborative, 0.5)
    rest = append_collaborative(content[:-1], collaborative[:-1], 0.5)
    new = from_similar_items(content[-1:].astype(np.float32), rest, 6)
    assert np.allclose(new[0], together[-1, 6:], atol=1e-6)
