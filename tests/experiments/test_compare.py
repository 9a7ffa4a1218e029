"""A whole comparison on a small dataset: all runs are made, reused, and equal in parameters and compute."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rqrec.cli import app
from rqrec.core.artifact import read_json, read_manifest
from tests.stages.world import write_world

pytestmark = pytest.mark.slow

ARCHITECTURES, KINDS, SEEDS = (
    ["decoder_only", "encoder_decoder", "hierarchical"],
    ["trained", "random"],
    [0, 1],
)


def command_line(world: Path, root: Path, **more: Any) -> list[str]:
    settings = {
        "dataset": "custom",
        "dataset_folder": str(world),
        "save_dir_root": str(root),
        "semantic_ids": KINDS,
        "seeds": SEEDS,
        "baselines": ["popularity"],
        "jobs": 2,
        "parameters": 20_000,
        "teraflops": 0.0005,
        "max_items": 5,
        "attn_heads": 1,
        "attn_layers": {"decoder_only": 2, "encoder_decoder": 1, "hierarchical": 1},
        "batch_size": 16,
        "validations": 2,
        "validation_users": 60,
        "save_model_every": 1,
        "vae_iterations": 10,
        "vae_batch_size": 16,
        "vae_embed_dim": 8,
        "vae_hidden_dims": [16],
        "vae_codebook_size": 8,
        "vae_n_layers": 2,
        **more,
    }
    (root.parent / "compare.gin").write_text(
        "\n".join(f"compare.{name}={value!r}" for name, value in settings.items())
    )
    return ["compare", str(root.parent / "compare.gin"), "--json"]


def error_of(world: Path, root: Path, **more: Any) -> str:
    """The message of a comparison that fails before it writes anything."""
    done = CliRunner().invoke(app, command_line(world, root, **more))
    assert done.exit_code == 1, done.output
    assert not root.exists()
    return done.stderr


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a finished comparison, and its results."""
    root = tmp_path_factory.mktemp("comparison") / "out"
    done = CliRunner().invoke(app, command_line(world, root))
    assert done.exit_code == 0, done.output
    return root, json.loads(done.stdout)


def models(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [run for run in results["runs"] if "architecture" in run]


def test_every_architecture_kind_and_seed_is_tested(finished: tuple[Path, dict[str, Any]]) -> None:
    root, results = finished
    tested = sorted((run["architecture"], run["semantic_ids"], run["seed"]) for run in models(results))
    assert tested == sorted((name, kind, seed) for name in ARCHITECTURES for kind in KINDS for seed in SEEDS)
    assert [row["name"] for row in results["summary"]] == ["popularity", *ARCHITECTURES, *ARCHITECTURES]
    for run in models(results):
        assert run["validation"]["step"] <= run["iterations"]
        assert 0 <= run["test"]["ndcg@10"] <= run["test"]["recall@10"] <= 1
    row = results["summary"][1]
    kind = (row["name"], row["semantic_ids"])
    one, two = (
        run["test"]["ndcg@10"]
        for run in models(results)
        if (run["architecture"], run["semantic_ids"]) == kind
    )
    assert row["test"]["ndcg@10"]["mean"] == pytest.approx((one + two) / 2)
    assert row["test"]["ndcg@10"]["deviation"] == pytest.approx(abs(one - two) / 2**0.5)
    assert read_json(root / "comparison.json")["runs"] == results["runs"]


def test_parameters_and_compute_are_equal(finished: tuple[Path, dict[str, Any]]) -> None:
    for run in models(finished[1]):
        assert run["parameters"] == pytest.approx(20_000, rel=0.05)
        # Training ends within half a step of the budget; that step may be larger than the mean one.
        assert run["teraflops"] == pytest.approx(0.0005, rel=1 / run["iterations"])
        assert run["iterations"] > 5


def test_the_report_states_the_results_of_the_runs(finished: tuple[Path, dict[str, Any]]) -> None:
    root, results = finished
    report = (root / "report.md").read_text()
    best = max(
        (row for row in results["summary"] if row["semantic_ids"] == "trained"),
        key=lambda row: row["test"]["ndcg@10"]["mean"],
    )
    shown = f"{best['test']['ndcg@10']['mean']:.4f} ± {best['test']['ndcg@10']['deviation']:.4f}"
    assert f"With trained IDs, {best['name']} has the highest ndcg@10, {shown}" in report
    assert (root / "comparison.png").stat().st_size > 5000
    assert "## Findings" not in report


def test_finished_runs_are_reused_and_findings_end_the_report(
    world: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    root, results = finished
    before = {path: path.stat().st_mtime_ns for path in root.glob("*/*/*/manifest.json")}
    assert len(before) == 4 + 2 + 12 * 2 + 1  # tables, RQ-VAEs, models with their evaluations, a baseline
    findings = root.parent / "findings.txt"
    findings.write_text("Structure\nhelps.\n\nSo does compute.\n")
    done = CliRunner().invoke(app, command_line(world, root, findings=str(findings)))
    assert json.loads(done.stdout)["runs"] == results["runs"]
    assert "13 of 13 runs are finished already" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (root / "report.md").read_text().endswith("## Findings\n\nStructure helps.\n\nSo does compute.\n")


@pytest.mark.timeout(1000)
def test_an_interrupted_comparison_resumes_and_reaches_the_same_weights(world: Path, tmp_path: Path) -> None:
    few = {
        "architectures": ["hierarchical"],
        "semantic_ids": ["random"],
        "seeds": [0],
        "baselines": [],
        "teraflops": 0.01,  # long enough to be interrupted
        "save_model_every": 5,
    }
    root, uninterrupted = tmp_path / "out", tmp_path / "uninterrupted" / "out"
    uninterrupted.parent.mkdir()
    command = [sys.executable, "-m", "rqrec", *command_line(world, root, **few)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    while not list(root.glob("runs/*/checkpoints/step-*")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=300)
    assert process.returncode == 130, message
    assert "Run the same command again to resume" in message
    assert "Traceback" not in message
    assert not list(root.glob("runs/*/retrieval/manifest.json"))
    done = CliRunner().invoke(app, command_line(world, root, **few))
    assert done.exit_code == 0, done.output
    (log,) = (root / "logs").glob("hierarchical*.log")
    assert "from step" in log.read_text()
    done = CliRunner().invoke(app, command_line(world, uninterrupted, **few))
    assert done.exit_code == 0, done.output
    retrieval = [next(path.glob("runs/*/retrieval")) for path in (root, uninterrupted)]
    hashes = {read_manifest(path).hash for path in retrieval}
    assert len(hashes) == 1


def test_bad_settings_are_refused_before_any_work(world: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    assert "'mamba'; allowed are decoder_only" in error_of(world, root, architectures=["mamba"])
    assert "'learned'; allowed are trained, untrained, random" in error_of(
        world, root, semantic_ids=["learned"]
    )
    assert "'guess'; allowed are popularity" in error_of(world, root, baselines=["guess"])
    assert "compare.seeds is empty" in error_of(world, root, seeds=[])
    assert "teraflops is -1, but must be above 0" in error_of(world, root, teraflops=-1)
    assert "dataset is 'netflix'" in error_of(world, root, dataset="netflix")


def test_the_message_of_a_failed_run_is_printed(world: Path, tmp_path: Path) -> None:
    few = {"architectures": ["hierarchical"], "semantic_ids": ["random"], "seeds": [0], "baselines": []}
    done = CliRunner().invoke(app, command_line(world, tmp_path / "out", **few, teraflops=1e-9))
    assert done.exit_code == 1
    assert "hierarchical-random-0: compare.teraflops=1e-09 does not pay for one step" in done.stderr


def test_a_parameter_count_that_no_width_has_is_refused(world: Path, tmp_path: Path) -> None:
    few = {"semantic_ids": ["random"], "seeds": [0], "baselines": [], "parameters": 900}
    done = CliRunner().invoke(app, command_line(world, tmp_path / "out", **few))
    assert done.exit_code == 1
    assert "but compare.parameters is 900 and compare.tolerance only 0.05" in done.stderr
