import polars as pl
import pytest

from rqrec.data.interactions import Interactions
from rqrec.data.k_core import k_core


def log(pairs: str) -> Interactions:
    users, items = zip(*pairs.split(), strict=True)
    return Interactions(pl.DataFrame({"user_id": users, "item_id": items, "timestamp": range(len(users))}))


def test_users_and_items_are_removed_repeatedly() -> None:
    # c has two users until u3, with only two interactions, is removed; then c is removed, then u2.
    chain = log("1a 1b 1d 4a 4b 4d 2a 2b 2c 3c 3a")
    kept = k_core(chain, user_core=3, item_core=2)
    assert kept.log["user_id"].to_list() == ["1", "1", "1", "4", "4", "4"]
    assert kept.log["item_id"].to_list() == ["a", "b", "d", "a", "b", "d"]


def test_a_log_that_is_already_a_core_does_not_change() -> None:
    core = log("1a 1b 2b 2a")
    assert k_core(core, 2, 2).log.equals(core.log)


def test_an_empty_core_is_refused() -> None:
    with pytest.raises(ValueError, match="No interaction is left"):
        k_core(log("1a 2b"), 2, 1)
