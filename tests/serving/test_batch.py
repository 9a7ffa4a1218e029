"""Batch recommendation gives each user the same items as a single request, for any partition and workers."""

import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from rqrec import Recommender
from rqrec.cli import app
from rqrec.core.artifact import read_manifest
from rqrec.core.workers import LocalProcesses, workers
from rqrec.data.ids import UnknownIdError
from rqrec.serving.batch import BatchConfig, batch_recommend
from tests.tiny import N_ITEMS

USERS = 150
ONE_PROCESS = LocalProcesses(1)


def histories() -> pl.DataFrame:
    """Histories of 0 items to more than the model reads; one user has none (null)."""
    rng = np.random.default_rng(0)
    rows = [[f"item {i}" for i in rng.integers(0, N_ITEMS, n % 13)] for n in range(USERS)]
    return pl.DataFrame({"user_id": [f"u{n}" for n in range(USERS)], "history": [None, *rows[1:]]})


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """Two files, of 100 and 50 users."""
    (tmp_path / "users").mkdir()
    histories()[:100].write_parquet(tmp_path / "users" / "a.parquet", row_group_size=30)
    histories()[100:].write_parquet(tmp_path / "users" / "b.parquet")
    return tmp_path / "users"


def read_rows(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted(folder.glob("part-*.parquet"))])


def assert_same_rows(first: pl.DataFrame, second: pl.DataFrame) -> None:
    """The same items in the same order; the last bits of scores may depend on the number of threads."""
    assert first.drop("scores").equals(second.drop("scores"))
    assert first["scores"].explode().to_numpy() == pytest.approx(
        second["scores"].explode().to_numpy(), abs=1e-5
    )


def test_every_user_gets_the_same_as_alone(tiny_run: Path, users: Path, tmp_path: Path) -> None:
    result = batch_recommend(
        tiny_run, users, tmp_path / "out", BatchConfig(k=5, rows_per_part=64), ONE_PROCESS
    )
    assert result == {"users": USERS, "parts": 3, "recommendations": 5 * USERS, "skipped_ids": 0}
    rows = read_rows(tmp_path / "out")
    assert rows["user_id"].to_list() == histories()["user_id"].to_list()
    recommender = Recommender.load(tiny_run)
    for row in (0, 1, 77, 149):
        (alone,) = recommender.recommend([histories()["history"].to_list()[row] or []], k=5)
        assert rows["item_ids"][row].to_list() == [item.item_id for item in alone]
        assert rows["scores"][row].to_list() == pytest.approx([item.score for item in alone], abs=1e-5)
    manifest = read_manifest(tmp_path / "out", "recommendations", verify=True)
    assert manifest.inputs == {"retrieval": read_manifest(tiny_run / "retrieval").hash}


def test_part_size_and_number_of_processes_do_not_change_rows(
    tiny_run: Path, users: Path, tmp_path: Path
) -> None:
    batch_recommend(tiny_run, users, tmp_path / "one", BatchConfig(rows_per_part=64), ONE_PROCESS)
    batch_recommend(tiny_run, users, tmp_path / "large", BatchConfig(rows_per_part=6400), ONE_PROCESS)
    batch_recommend(tiny_run, users, tmp_path / "two", BatchConfig(rows_per_part=64), LocalProcesses(2))
    assert_same_rows(read_rows(tmp_path / "one"), read_rows(tmp_path / "large"))
    assert_same_rows(read_rows(tmp_path / "one"), read_rows(tmp_path / "two"))


class Interrupted:
    """Workers that are interrupted by Ctrl-C after `tasks` tasks."""

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks
        self.done = 0

    def run(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        for task in tasks:
            if self.done == self.tasks:
                raise KeyboardInterrupt
            yield function(task)
            self.done += 1


def test_an_interrupted_run_resumes_with_the_missing_parts(
    tiny_run: Path, users: Path, tmp_path: Path
) -> None:
    config, out = BatchConfig(k=3, rows_per_part=64), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        batch_recommend(tiny_run, users, out, config, Interrupted(2))
    first = {path: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    assert len(first) == 2
    assert not (out / "manifest.json").exists()
    rest = Interrupted(100)
    result = batch_recommend(tiny_run, users, out, config, rest)
    assert (rest.done, result["users"], result["parts"]) == (1, USERS, 3)
    assert all(path.stat().st_mtime_ns == modified for path, modified in first.items())
    assert batch_recommend(tiny_run, users, out, config, Interrupted(0)) == result
    next(iter(first)).unlink()
    again = Interrupted(100)
    assert batch_recommend(tiny_run, users, out, config, again) == result
    assert again.done == 1


def test_inputs_of_one_name_are_told_apart(tiny_run: Path, tmp_path: Path) -> None:
    inputs = [tmp_path / folder / "users.parquet" for folder in "ab"]
    for number, file in enumerate(inputs):
        file.parent.mkdir()
        pl.DataFrame({"user_id": [number], "history": [["item 1"]]}).write_parquet(file)
    pattern, out = tmp_path / "*" / "users.parquet", tmp_path / "out"
    batch_recommend(tiny_run, pattern, out, BatchConfig(k=3), ONE_PROCESS)
    pl.DataFrame({"user_id": [2], "history": [["item 2"]]}).write_parquet(inputs[0])
    with pytest.raises(ValueError, match="different values of: inputs"):
        batch_recommend(tiny_run, pattern, out, BatchConfig(k=3), ONE_PROCESS)


def test_a_folder_of_another_run_is_refused_with_the_differences(
    tiny_run: Path, users: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    batch_recommend(tiny_run, users / "b.parquet", out, BatchConfig(k=3), ONE_PROCESS)
    with pytest.raises(ValueError, match=r"different values of: k \(was 3, now 4\)"):
        batch_recommend(tiny_run, users / "b.parquet", out, BatchConfig(k=4), ONE_PROCESS)
    with pytest.raises(ValueError, match="different values of: inputs"):
        batch_recommend(tiny_run, users, out, BatchConfig(k=3), ONE_PROCESS)


@pytest.mark.parametrize("plan", [None, "[]", '{"tasks": ["write it"]}', '{"model": "the best"}'])
def test_a_folder_of_somebody_else_is_not_touched(
    tiny_run: Path, users: Path, tmp_path: Path, plan: str | None
) -> None:
    mine = tmp_path / "mine"
    (mine / ".histories").mkdir(parents=True)
    texts = {"thesis.txt": "years", ".draft.tmp": "days", ".histories/2025.txt": "hours"}
    if plan is not None:
        texts["plan.json"] = plan
    for name, text in texts.items():
        (mine / name).write_text(text)
    with pytest.raises(FileExistsError, match="was not created by this command"):
        batch_recommend(tiny_run, users, mine, BatchConfig(), ONE_PROCESS)
    found = {str(path.relative_to(mine)): path.read_text() for path in mine.rglob("*") if path.is_file()}
    assert found == texts


@pytest.mark.parametrize(
    ("types", "expected"), [((pl.Int32, pl.Int64), pl.Int64), ((pl.Float64, pl.String), pl.String)]
)
def test_user_ids_of_several_types_get_one(
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    types: tuple[type[pl.DataType], ...],
    expected: type[pl.DataType],
) -> None:
    for name, dtype in zip("ab", types, strict=True):
        users = pl.Series("user_id", [1, 2]).cast(dtype)
        pl.DataFrame([users, pl.Series("history", [["item 1"], []])]).write_parquet(
            tmp_path / f"{name}.parquet"
        )
    result = batch_recommend(
        tiny_run, tmp_path / "*.parquet", tmp_path / "out", BatchConfig(k=3), ONE_PROCESS
    )
    rows = read_rows(tmp_path / "out")
    assert result["users"] == len(rows) == 4
    assert rows["user_id"].to_list() == pl.Series([1, 2, 1, 2]).cast(expected).to_list()
    assert f"user_id is {types[0].__name__} here, and becomes" in capsys.readouterr().err


def test_what_lacks_a_user_is_named_as_it_was_given(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "j.jsonl").write_text(
        '{"user_id": "u", "history": ["item 1"]}\n{"user_id": null, "history": []}\n'
    )
    with pytest.raises(ValueError, match=r"/j\.jsonl: row 1 has no user_id"):
        batch_recommend(tiny_run, tmp_path / "j.jsonl", tmp_path / "out", BatchConfig(), ONE_PROCESS)


def test_a_damaged_part_of_a_finished_run_is_made_again(
    tiny_run: Path, users: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, config = tmp_path / "out", BatchConfig(k=3)
    result = batch_recommend(tiny_run, users, out, config, ONE_PROCESS)
    rows = read_rows(out)
    damaged = sorted(out.glob("part-*.parquet"))[1]
    damaged.write_bytes(b"PAR1")
    assert batch_recommend(tiny_run, users, out, config, ONE_PROCESS) == result
    assert f"missing or damaged: {damaged.name}" in capsys.readouterr().err
    assert_same_rows(read_rows(out), rows)
    read_manifest(out, "recommendations", verify=True)


class Stop:
    """Stops a run, in its own thread, before it touches `folder` for the `step`-th time."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.left, self.thread = str(folder), step, 0
        self.reached, self.go_on = threading.Event(), threading.Event()

    def hook(self, event: str, arguments: tuple[object, ...]) -> None:
        """For `sys.addaudithook`."""
        if threading.get_ident() == self.thread and self.folder in str(arguments[:2]):
            self.left -= 1
            if self.left < 0:
                self.reached.set()
                self.go_on.wait(60)


def test_a_second_run_at_any_moment_of_the_first_is_refused_or_does_all_of_it(
    tiny_run: Path, users: Path, tmp_path: Path
) -> None:
    source, config = users / "b.parquet", BatchConfig(k=3, rows_per_part=64)
    stop = Stop(tmp_path, 0)
    seen: set[object] = set()
    sys.addaudithook(lambda event, arguments: stop.hook(event, arguments))  # it can never be removed

    def first(out: Path) -> dict[str, Any]:
        stop.thread = threading.get_ident()
        try:
            return batch_recommend(tiny_run, source, out, config, ONE_PROCESS)
        finally:
            stop.thread = 0
            stop.reached.set()

    for step in range(1000):
        out = tmp_path / f"{step}"
        stop = Stop(out, step)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(first, out)
            stop.reached.wait(60)
            try:
                seen.add(batch_recommend(tiny_run, source, out, config, ONE_PROCESS)["users"])
            except ValueError as error:
                seen.add(str(error).partition(" in ")[0])
            finally:
                stop.go_on.set()
            assert running.result()["users"] == len(read_rows(out)) == 50
        if stop.left >= 0:
            break
    assert step > 20
    assert seen == {50, "Another batch-recommend is running"}


def test_unknown_ids_raise_an_error_or_are_skipped(tiny_run: Path, tmp_path: Path) -> None:
    source = tmp_path / "users.parquet"
    histories_of = {"user_id": [1, 2], "history": [["item 1"], ["gone", "item 3", "lost"]]}
    pl.DataFrame(histories_of).write_parquet(source)
    with pytest.raises(UnknownIdError, match=r"User 2: Unknown item id 'gone', 'lost'.*--unknown skip"):
        batch_recommend(tiny_run, source, tmp_path / "raise", BatchConfig(), ONE_PROCESS)
    result = batch_recommend(
        tiny_run, source, tmp_path / "skip", BatchConfig(k=2, unknown="skip"), ONE_PROCESS
    )
    rows = read_rows(tmp_path / "skip")
    assert (result["skipped_ids"], rows["n_skipped"].to_list()) == (2, [0, 2])
    assert rows["user_id"].to_list() == [1, 2]
    (alone,) = Recommender.load(tiny_run).recommend([["item 3"]], k=2)
    assert rows["item_ids"][1].to_list() == [item.item_id for item in alone]


def test_seen_items_are_excluded_and_k_may_exceed_the_catalogue(tiny_run: Path, tmp_path: Path) -> None:
    source = tmp_path / "users.parquet"
    history = [f"item {item}" for item in range(40)]
    pl.DataFrame({"user_id": ["u"], "history": [history]}).write_parquet(source)
    batch_recommend(tiny_run, source, tmp_path / "new", BatchConfig(k=100), ONE_PROCESS)
    batch_recommend(tiny_run, source, tmp_path / "all", BatchConfig(k=100, exclude_seen=False), ONE_PROCESS)
    assert not set(read_rows(tmp_path / "new")["item_ids"][0]) & set(history)
    assert (
        len(read_rows(tmp_path / "new")["item_ids"][0]),
        len(read_rows(tmp_path / "all")["item_ids"][0]),
    ) == (
        8,
        48,
    )


def test_csv_histories_and_interaction_logs_give_the_same_results(
    tiny_run: Path, users: Path, tmp_path: Path
) -> None:
    table = histories().filter(pl.col("history").list.len() > 0)
    table.with_columns(pl.col("history").list.join(", ")).write_csv(tmp_path / "users.csv")
    log = table.explode("history").with_row_index("timestamp").rename({"history": "item_id"})
    log.sample(fraction=1.0, shuffle=True, seed=0).write_csv(tmp_path / "log.csv")
    expected = None
    for source in ("users.csv", "log.csv"):
        out = tmp_path / f"out-{source}"
        batch_recommend(tiny_run, tmp_path / source, out, BatchConfig(k=4), ONE_PROCESS)
        batch_recommend(tiny_run, tmp_path / source, out, BatchConfig(k=4), ONE_PROCESS)
        rows = read_rows(out).sort("user_id")
        expected = rows if expected is None else expected
        assert rows["user_id"].to_list() == sorted(table["user_id"])
        # The order of users differs, and with it which users share a search.
        assert rows["item_ids"].to_list() == expected["item_ids"].to_list()
        assert not (out / ".histories").exists()


def test_a_log_grouped_in_several_passes_keeps_each_user_in_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rqrec.data import history_files as module

    monkeypatch.setattr(module, "LOG_ROWS_IN_MEMORY", 100)
    table = histories().filter(pl.col("history").list.len() > 0)
    log = table.explode("history").with_row_index("timestamp").rename({"history": "item_id"})
    log.reverse().write_parquet(tmp_path / "log.parquet")
    files = module.as_histories([tmp_path / "log.parquet"], tmp_path / "grouped")
    assert len(files) > 5
    grouped = pl.concat(map(pl.read_parquet, files)).sort("user_id")
    assert grouped.drop("timestamps").equals(table.sort("user_id"))


def test_invalid_history_files_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    def refused(table: pl.DataFrame, expected: str, name: str = "x.parquet") -> None:
        table.write_parquet(tmp_path / name)
        with pytest.raises(ValueError, match=expected):
            batch_recommend(
                tiny_run, tmp_path / name, tmp_path / f"out {expected}", BatchConfig(), ONE_PROCESS
            )

    refused(pl.DataFrame({"user": [1]}), r"needs the columns user_id and history .* it has user\.")
    refused(pl.DataFrame({"user_id": ["u"], "history": [3]}), "history has type Int64; it must be a list")
    refused(pl.DataFrame({"user_id": ["a", None], "history": [["item 1"], []]}), "row 1 has no user_id")
    refused(pl.DataFrame({"user_id": ["a"], "history": [["item 1", None]]}), "user 'a' has a missing item id")
    for users in ([["a"]], [{"a": "b"}], [b"a"], [date(2024, 1, 1)]):
        refused(
            pl.DataFrame({"user_id": users, "history": [["item 1"]]}), r"user_id has type .*; it must be text"
        )
    for history in ([[["item 1"]]], [[b"item 1"]], [[{"id": "item 1"}]]):
        refused(
            pl.DataFrame({"user_id": ["a"], "history": history}),
            r"history has type List.*; it must be a list",
        )
    log = {"user_id": ["a", None], "item_id": ["item 1", "item 2"], "timestamp": [1, 2]}
    refused(pl.DataFrame(log), r"x.parquet: 1 of 2 rows have no user_id. Correct or remove them")
    refused(
        pl.DataFrame({**log, "user_id": ["a", "b"], "item_id": [None, "a"]}), "1 of 2 rows have no item_id"
    )
    refused(pl.DataFrame({**log, "user_id": [["a"], ["b"]]}), r"user_id has type List\(String\)")
    with pytest.raises(FileNotFoundError, match=r"There is no table \(\.parquet, \.csv"):
        batch_recommend(tiny_run, tmp_path / "*.nothing", tmp_path / "out", BatchConfig(), ONE_PROCESS)
    (tmp_path / "notes.txt").write_text("a")
    with pytest.raises(ValueError, match=r"suffix '\.txt'; allowed"):
        batch_recommend(tiny_run, tmp_path / "notes.txt", tmp_path / "out", BatchConfig(), ONE_PROCESS)
    with pytest.raises(ValueError, match="rows_per_part is 100, but must be a multiple of 64"):
        BatchConfig(rows_per_part=100)


def test_nothing_is_written_into_a_model(tiny_run: Path, users: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_run / "retrieval", model)
    with pytest.raises(
        ValueError, match=r"batch lies in .*model, an artefact that another file would damage"
    ):
        batch_recommend(model, users, model / "batch", BatchConfig(), ONE_PROCESS)
    read_manifest(model, "retrieval", verify=True)
    (model / "more.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"more.json is not in the manifest of .*Move it elsewhere, or: Recreate"
    ):
        read_manifest(model, "retrieval", verify=True)


def test_the_command_line(tiny_run: Path, users: Path, tmp_path: Path) -> None:
    def run(*options: object) -> Any:
        where = ("--artifact", tiny_run, "--input", f"{users}/*.parquet", "--out", tmp_path / "out")
        return CliRunner().invoke(app, ["batch-recommend", *map(str, (*where, *options))])

    done = run("--k", 2, "--allow-seen", "--processes", 1, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["recommendations"] == 2 * USERS
    assert "done in" in done.stderr
    assert run("--k", 3).exit_code == 1
    assert run("--unknown", "guess").exit_code == 2
    assert run("--engine", "slurm").exit_code == 2


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_rows(tiny_run: Path, users: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason='Ray is not installed: pip install "rqrec[ray]"')
    batch_recommend(tiny_run, users, tmp_path / "local", BatchConfig(rows_per_part=64), ONE_PROCESS)
    ray.init(num_cpus=2, log_to_driver=False)
    try:
        batch_recommend(tiny_run, users, tmp_path / "ray", BatchConfig(rows_per_part=64), workers("ray"))
        with pytest.raises(UnknownIdError, match="User 'x'"):
            pl.DataFrame({"user_id": ["x"], "history": [["gone"]]}).write_parquet(tmp_path / "x.parquet")
            batch_recommend(tiny_run, tmp_path / "x.parquet", tmp_path / "no", BatchConfig(), workers("ray"))
    finally:
        ray.shutdown()
    assert_same_rows(read_rows(tmp_path / "local"), read_rows(tmp_path / "ray"))


def test_a_run_that_failed_before_its_first_part_may_be_repeated_with_other_settings(
    tiny_run: Path, tmp_path: Path
) -> None:
    pl.DataFrame({"user_id": ["a"], "history": [["nothing"]]}).write_parquet(tmp_path / "users.parquet")
    arguments = (tiny_run, tmp_path / "users.parquet", tmp_path / "out")
    with pytest.raises(UnknownIdError, match="--unknown skip"):
        batch_recommend(*arguments, BatchConfig(k=3), ONE_PROCESS)
    assert batch_recommend(*arguments, BatchConfig(k=3, unknown="skip"), ONE_PROCESS)["skipped_ids"] == 1
    with pytest.raises(ValueError, match="was started with different values of: k"):
        batch_recommend(*arguments, BatchConfig(k=4, unknown="skip"), ONE_PROCESS)
