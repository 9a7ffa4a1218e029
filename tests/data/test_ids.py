import numpy as np
import pytest

from rqrec.data.ids import PADDING, IdMap, UnknownIdError


def test_ids_and_indices_are_each_others_inverse() -> None:
    id_map = IdMap(["b", "a", "10"])
    assert id_map.indices(["10", "b", "b"]).tolist() == [2, 0, 0]
    assert id_map.ids(np.array([2, 0])) == ["10", "b"]
    assert (len(id_map), "a" in id_map, "c" in id_map) == (3, True, False)
    assert id_map == IdMap(["b", "a", "10"]) != IdMap(["a", "b", "10"])


def test_unknown_ids_are_named() -> None:
    with pytest.raises(UnknownIdError, match=r"'x', 'y'.*2 items.*such as 'a'"):
        IdMap(["a", "b"]).indices(["a", "x", "y"])
    with pytest.raises(UnknownIdError, match="and 2 more"):
        IdMap(["a"]).indices(list("tuvwxyz"))


def test_padding_is_no_item() -> None:
    with pytest.raises(IndexError, match="-1 is outside 0 to 0"):
        IdMap(["a"]).ids([PADDING])


@pytest.mark.parametrize(("ids", "message"), [(["a", "b", "a"], "'a' occurs more"), (["a", ""], "empty id")])
def test_ids_are_unique_and_not_empty(ids: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IdMap(ids)
