import polars as pl
import pytest

from rqrec.data.interactions import Interactions
from rqrec.data.k_core import k_core


def log(pairs: str) -> Interactions:
    users, items = zip(*pairs.split(), strict=True)
    return Interactions(pl.DataFrame({"user_id": users, "item_id": items, "timestamp": range(len(users))}))


def test_the_core_is_found_by_removing_in_turn() -> None:
    # c has two users until u3, who took only two things, falls out; then c falls out, then u2.
    chain = log("1a 1b 1d 4a 4b 4d 2a 2b 2c 3c 3a")
    kept = k_core(chain, user_core=3, item_core=2)
    assert kept.log["user_id"].to_list() == ["1", "1", "1", "4", "4", "4"]
    assert kept.log["item_id"].to_list() == ["a", "b", "d", "a", "b", "d"]


def test_a_log_that_is_a_core_stays_as_it_is() -> None:
    core = log("1a 1b 2b 2a")
    assert k_core(core, 2, 2).log.equals(core.log)


def test_a_core_with_nothing_in_it() -> None:
    with pytest.raises(ValueError, match="No interaction is left"):
        k_core(log("1a 2b"), 2, 1)
