import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from rqrec.data import ids as module
from rqrec.data.ids import PADDING, IdMap, UnknownIdError


def test_ids_and_indices_round_trip() -> None:
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


def test_ids_with_colliding_hashes_are_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_hashes", lambda ids: np.array([len(item_id) for item_id in ids]))
    ids = ["a", "b", "cc", "c", "dd"]
    id_map = IdMap(ids)
    assert id_map.indices(ids[::-1]).tolist() == [4, 3, 2, 1, 0]
    assert id_map.find(["e", "ee", "a", "eee", ""]).tolist() == [PADDING, PADDING, 0, PADDING, PADDING]
    with pytest.raises(ValueError, match="'b' occurs more"):
        IdMap(["a", "b", "cc", "b"])


def test_a_map_can_be_unpickled_in_a_process_with_another_hash_seed() -> None:
    code = "import pickle, sys; id_map = pickle.load(sys.stdin.buffer); print(id_map.indices(['b', 'a']).tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(IdMap(["a", "b"])),
        capture_output=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
        check=True,
    )
    assert done.stdout.strip() == b"[1, 0]"


def test_padding_is_not_an_item() -> None:
    with pytest.raises(IndexError, match="-1 is outside 0 to 0"):
        IdMap(["a"]).ids([PADDING])


@pytest.mark.parametrize(("ids", "message"), [(["a", "b", "a"], "'a' occurs more"), (["a", ""], "empty id")])
def test_ids_are_unique_and_not_empty(ids: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IdMap(ids)


def test_an_unknown_id_is_compared_with_ids_that_differ_in_their_form_only() -> None:
    ids = IdMap(["007", "lamp"])
    with pytest.raises(UnknownIdError, match="The catalogue has '007', which differs only by leading zeros"):
        ids.indices(["7"])
    with pytest.raises(UnknownIdError, match="Use the ids of the catalogue, such as '007'"):
        ids.indices(["8"])
    assert ids.explain("lamp\u00a0") == "The catalogue has 'lamp', which differs only by spaces around it."
    assert ids.explain("7" * 10_000) == ""
