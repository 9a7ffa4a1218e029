"""Batch recommendation by a model that uses the time between items."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rqrec import Recommender
from rqrec.core.artifact import create
from rqrec.core.workers import LocalProcesses
from rqrec.retrieval.artifact import write_retrieval
from rqrec.serving.batch import BatchConfig, batch_recommend
from tests.retrieval.test_artifact import fresh_artifact

START = 1_700_000_000
HISTORIES: dict[str, tuple[list[str], list[int]]] = {
    "a": (["item 1", "item 2", "item 3"], [START, START + 60, START + 10**6]),
    "b": (["item 9", "item 1"], [START, START + 10**7]),
    "c": (["item 4", "gone", "item 9", "item 7"], [START, START + 5, START + 10, START + 10**5]),
}
CONFIG = BatchConfig(k=5, unknown="skip")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, for which time gaps count."""
    artifact = fresh_artifact("decoder_only", time_gaps=8)
    artifact.model.side.gap.weight.data.mul_(50)
    folder = tmp_path_factory.mktemp("timed") / "retrieval"
    with create(folder, "retrieval", settings={}, inputs={}) as target:
        write_retrieval(target, artifact)
    return folder


def recommended(model: Path, source: Path, out: Path) -> dict[str, list[str]]:
    batch_recommend(model, source, out, CONFIG, LocalProcesses(1))
    rows = pl.concat([pl.read_parquet(path) for path in sorted(out.glob("part-*.parquet"))])
    return dict(zip(rows["user_id"].to_list(), rows["item_ids"].to_list(), strict=True))


def expected(model: Path, **changed: list[int]) -> dict[str, list[str]]:
    recommender = Recommender.load(model)
    found = {}
    for user, (history, times) in HISTORIES.items():
        (items,) = recommender.recommend([history], 5, timestamps=[changed.get(user, times)], unknown="skip")
        found[user] = [item.item_id for item in items]
    return found


def as_log(scale: int = 1) -> pl.DataFrame:
    rows = [
        (user, item, time * scale)
        for user, (history, times) in HISTORIES.items()
        for item, time in reversed(list(zip(history, times, strict=True)))
    ]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def as_histories(times: Any = lambda times: times) -> pl.DataFrame:
    rows = [(user, history, times(stamps)) for user, (history, stamps) in HISTORIES.items()]
    return pl.DataFrame(rows, schema=["user_id", "history", "timestamps"], orient="row")


def test_the_times_of_a_log_reach_the_model(model: Path, tmp_path: Path) -> None:
    assert expected(model, b=[START, START + 1]) != expected(model)  # times count
    as_log().write_csv(tmp_path / "seconds.csv")
    as_log(1000).write_parquet(tmp_path / "milliseconds.parquet")
    dates = pl.from_epoch("timestamp", "s").dt.cast_time_unit("ns")
    as_log().with_columns(dates).write_parquet(tmp_path / "dates.parquet")
    as_log().with_columns(dates).write_csv(tmp_path / "iso.csv")
    for name in ("seconds.csv", "milliseconds.parquet", "dates.parquet", "iso.csv"):
        assert recommended(model, tmp_path / name, tmp_path / f"out-{name}") == expected(model), name


def test_the_times_of_histories_reach_the_model(model: Path, tmp_path: Path) -> None:
    as_histories().write_parquet(tmp_path / "lists.parquet")
    as_histories(lambda times: [time * 10**6 for time in times]).write_parquet(tmp_path / "micro.parquet")
    text = as_histories(lambda times: ", ".join(str(time) for time in times))
    text.with_columns(pl.col("history").list.join(",")).write_csv(tmp_path / "text.csv")
    for name in ("lists.parquet", "micro.parquet", "text.csv"):
        assert recommended(model, tmp_path / name, tmp_path / f"out-{name}") == expected(model), name


def test_users_without_items_need_no_times(model: Path, tmp_path: Path) -> None:
    table = pl.DataFrame(
        {"user_id": ["x", "y", "z"], "history": [[], None, ["item 1"]], "timestamps": [[], None, [START]]}
    )
    table.write_parquet(tmp_path / "users.parquet")
    assert len(recommended(model, tmp_path / "users.parquet", tmp_path / "out")["y"]) == 5
    table[:2].write_parquet(tmp_path / "empty.parquet")
    assert len(recommended(model, tmp_path / "empty.parquet", tmp_path / "out2")["x"]) == 5
    table[:0].write_parquet(tmp_path / "none.parquet")
    assert (
        batch_recommend(model, tmp_path / "none.parquet", tmp_path / "out3", CONFIG, LocalProcesses(1))[
            "users"
        ]
        == 0
    )


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (as_histories().drop("timestamps"), r"needs the column timestamps .* it has user_id, history"),
        (as_histories(lambda times: times[1:]), r"user 'a' has 3 items and 2 timestamps"),
        (as_histories(lambda times: [-1, *times[1:]]), r"user 'a' has the timestamp -1, which is not valid"),
        (as_histories(lambda times: times[::-1]), r"user 'a', \d+ comes after \d+. .* oldest first"),
        (as_histories(lambda times: [times[0] * 1000, *times[1:]]), r"mixes seconds .* and milliseconds"),
        (as_histories(lambda times: times[0]), r"timestamps has type Int64; it must be a list of times"),
        (as_log().with_columns(timestamp=pl.lit("soon")), r"9 rows have no valid timestamp .*'soon'"),
    ],
)
def test_missing_and_invalid_times_are_refused(
    model: Path, tmp_path: Path, table: pl.DataFrame, problem: str
) -> None:
    table.write_parquet(tmp_path / "users.parquet")
    with pytest.raises(ValueError, match=problem):
        batch_recommend(model, tmp_path / "users.parquet", tmp_path / "out", CONFIG, LocalProcesses(1))


def test_parts_of_one_file_must_have_the_same_unit(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rqrec.data import history_files as module

    monkeypatch.setattr(module, "ROWS_PER_GROUP", 2)
    as_histories().write_parquet(tmp_path / "users.parquet")
    assert recommended(model, tmp_path / "users.parquet", tmp_path / "out") == expected(model)
    mixed = pl.concat([as_histories()[:2], as_histories(lambda times: [1000 * t for t in times])[2:]])
    mixed.write_parquet(tmp_path / "mixed.parquet")
    with pytest.raises(ValueError, match="mixes seconds and milliseconds"):
        batch_recommend(model, tmp_path / "mixed.parquet", tmp_path / "out2", CONFIG, LocalProcesses(1))


def test_histories_converted_without_times_are_converted_again(model: Path, tmp_path: Path) -> None:
    as_log().write_parquet(tmp_path / "log.parquet")
    out = tmp_path / "out"
    batch_recommend(model, tmp_path / "log.parquet", out, CONFIG, LocalProcesses(1))
    for part in [*out.glob("part-*.parquet"), out / "manifest.json"]:
        part.unlink()
    (out / ".histories").mkdir()
    as_histories().drop("timestamps").write_parquet(out / ".histories" / "00000.parquet")
    assert recommended(model, tmp_path / "log.parquet", out) == expected(model)
