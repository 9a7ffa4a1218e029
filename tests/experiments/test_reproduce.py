"""The recipe on a custom log: metrics, resuming, and invalid input."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rqrec import Recommender
from rqrec.cli import app
from rqrec.core.artifact import read_json, read_manifest
from rqrec.experiments.reproduce import (
    BASELINES,
    METRICS,
    ROWS,
    TABLES,
    TRAINING_SHARE,
    training_minutes,
)
from tests.stages.world import write_world


def reproduce(world: Path, out: Path, *more: str, minutes: str = "0.05") -> Result:
    files = ["--interactions", str(world / "log.parquet"), "--embeddings", str(world / "item_embeddings.npy")]
    arguments = ["reproduce", "custom", *files, "--out", str(out), "--max-minutes", minutes, "--json"]
    return CliRunner().invoke(app, [*arguments, *more])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("reproduction") / "out"
    done = reproduce(world, out)
    assert done.exit_code == 0, done.output
    return out, json.loads(done.stdout)


def test_it_reports_every_row_and_the_time_of_each_stage(finished: tuple[Path, dict[str, Any]]) -> None:
    out, result = finished
    (run,) = result["seeds"]
    for table, choice in TABLES.items():
        assert {*result[table]} == {"codes", "trained", "all", "sasrec", *BASELINES}
        for row in ROWS:
            assert {name: figure["mean"] for name, figure in result[table][row].items()} == run[table][row]
            assert {*run[table][row]} == {*METRICS}
            folder = out if row in BASELINES else out / "seed_0"
            evaluation = read_json(folder / f"evaluation_{row}" / "evaluation.json")
            assert run[table][row].items() <= evaluation["seen_items"][choice]["metrics"].items()
    assert result["test"]["all"]["recall@10"]["mean"] > 0.5  # popularity has a fifth
    difference = run["against_hybrid_knn"]["all"]["recall@10"]
    assert difference["mean"] == pytest.approx(
        run["test"]["all"]["recall@10"] - run["test"]["hybrid_knn"]["recall@10"]
    )
    assert 0 <= difference["p_value"] <= 1
    assert result["against_hybrid_knn"] == run["against_hybrid_knn"]  # of a single seed
    assert result["parameters"] == run["parameters"] > 0
    assert {"dataset", "embeddings", "rqkmeans_2", "semantic_ids_2", "seed_0/experts"} <= {*result["seconds"]}
    assert read_json(out / "reproduction.json") == result
    recommender = Recommender.load(out / "seed_0")
    assert {*recommender.experts} == {*run["experts"]}
    assert {*run["experts"]} == {"codes", "codes_2", "dense", "dense_2", "neighbours"}
    assert recommender.recommend([["1", "2"]], k=3)


def test_existing_artefacts_are_reused(world: Path, finished: tuple[Path, dict[str, Any]]) -> None:
    out, result = finished
    before = read_manifest(out / "semantic_ids").hash
    done = reproduce(world, out, "--seeds", "1")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["seeds"] == result["seeds"]
    assert "Training" not in done.stderr
    assert read_manifest(out / "semantic_ids").hash == before


def test_another_budget_is_refused_in_the_words_of_the_command(
    world: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    out, result = finished
    for minutes, more, named in (("0.1", (), "--max-minutes 0.1"), ("0.05", ("--seeds", "2"), "--seeds 2")):
        done = reproduce(world, out, *more, minutes=minutes)
        assert (done.exit_code, done.stdout) == (1, "")
        assert f"{out} was made with --max-minutes 0.05 --seeds 1 --jobs" in done.stderr
        assert f"and this command has {named}, so" in done.stderr
    assert read_json(out / "reproduction.json") == result


def test_a_training_that_was_made_otherwise_is_refused_by_the_folder_to_remove(
    world: Path, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = shutil.copytree(finished[0], tmp_path / "out")
    (out / "budget.json").unlink()
    done = reproduce(world, out, minutes="0.1")
    assert done.exit_code == 1
    assert "training.max_minutes was" in done.stderr
    assert f"or remove {out} to begin again." in done.stderr


@pytest.mark.parametrize("name", ["seconds.json", "budget.json"])
@pytest.mark.parametrize("content", ["", "[]", '{"seeds": "a"}', '{"seeds": null}', "[" * 5000])
def test_damaged_notes_of_an_experiment_end_in_a_sentence(
    name: str, content: str, world: Path, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = shutil.copytree(finished[0], tmp_path / "out")
    (out / name).write_text(content)
    done = reproduce(world, out)
    assert done.exit_code == 1
    assert name in done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_training_gets_the_time_that_slow_embeddings_leave() -> None:
    assert training_minutes(120, 10) == pytest.approx(TRAINING_SHARE * 8)
    assert training_minutes(1200, 10) == pytest.approx(TRAINING_SHARE * 2)  # more than the whole budget
    assert training_minutes(0, 10) == pytest.approx(TRAINING_SHARE * 10)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["amazon-books"], "source is 'amazon-books'"),
        (["custom"], "custom needs --interactions"),
        (["amazon-beauty", "--interactions", "log.parquet"], "are for custom"),
        (["custom", "--interactions", "log.parquet", "--max-minutes", "0"], "max_minutes is 0.0"),
        (["custom", "--interactions", "no/log.parquet"], "no/log.parquet"),
        (["amazon-beauty", "--tie-break", "random"], "tie_break is 'random'"),
    ],
)
def test_bad_input_gets_an_error_message(arguments: list[str], expected: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["reproduce", *arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code in (1, 2)
    assert expected in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_an_encoder_for_given_embeddings_is_refused(tmp_path: Path) -> None:
    done = reproduce(write_world(tmp_path / "world"), tmp_path / "out", "--encoder", "some-model")
    assert done.exit_code == 1
    assert "encoder has no effect on given embeddings" in done.stderr
    assert not (tmp_path / "out").exists()
