import polars as pl
import pytest

from rqrec.data.ids import IdMap, UnknownIdError
from rqrec.data.interactions import Interactions


def log(rows: list[tuple[str, str, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def test_sequences_are_in_time_order_and_ties_keep_the_order_of_the_log() -> None:
    rows = [("u", "c", 5), ("v", "a", 1), ("u", "b", 5), ("u", "a", 2), ("v", "c", 1)]
    sequences = Interactions(log(rows)).sequences(IdMap(["a", "b", "c"]))
    assert list(sequences.user_ids) == ["u", "v"]
    assert [sequences.of_user(u).tolist() for u in (0, 1)] == [[0, 2, 1], [0, 2]]
    assert sequences.timestamps.tolist() == [2, 5, 5, 1, 1]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (log([]).drop("item_id"), "item_id"),
        (log([]), "empty"),
        (log([("u", "a", -3)]), "-3"),
        (log([("u", "a", 1_700_000_000_000)]), "timestamp 1700000000000: timestamps must be seconds"),
        (pl.DataFrame({"user_id": ["u"], "item_id": [None], "timestamp": [1]}), "no item_id"),
        (pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1.5]}), "integer"),
    ],
)
def test_an_invalid_log_is_refused(frame: pl.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Interactions(frame)


def test_an_item_missing_from_the_catalogue_is_named() -> None:
    with pytest.raises(UnknownIdError, match="'z'"):
        Interactions(log([("u", "z", 1)])).sequences(IdMap(["a"]))
