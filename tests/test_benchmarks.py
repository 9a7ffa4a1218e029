"""The benchmarks run with small sizes."""

import json
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def printed(name: str, options: str, *paths: str | Path) -> dict[str, Any]:
    """The one JSON object that a benchmark prints, in this process: another one would load torch again."""
    script, threads = BENCHMARKS / f"{name}.py", torch.get_num_threads()
    command = [str(script), "--json", *options.split(), *map(str, paths)]
    with (
        patch.object(sys, "argv", command),
        patch.object(sys, "path", [str(BENCHMARKS), *sys.path]),
        patch.dict(os.environ),
        redirect_stdout(StringIO()) as output,
    ):
        try:
            runpy.run_path(str(script), run_name="__main__")
        finally:
            torch.set_num_threads(threads)
    return json.loads(output.getvalue())


def printed_by_process(name: str, options: str, launcher: str = "") -> dict[str, Any]:
    """The same by a process of its own, for benchmarks that start others or measure all of it."""
    script = [sys.executable, *launcher.split(), str(BENCHMARKS / f"{name}.py"), "--json"]
    done = subprocess.run([*script, *options.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_decoding_measures_each_architecture() -> None:
    rows = printed("decoding", "--items 300 --beams 4 --threads 1 --batch 2 --seconds 0.01")["rows"]
    names = ["decoder_only", "encoder_decoder", "hierarchical", "t5_generate"]
    assert [row["architecture"] for row in rows] == names
    for row in rows:
        assert row["items"] == 300
        assert row["users_per_second"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]


def test_beam_agreement_compares_each_width_with_scoring_every_item(tiny_run: Path) -> None:
    rows = printed("beam_agreement", "--beams 10 48 --users 50", "--run", tiny_run)["rows"]
    assert [row["beam"] for row in rows] == ["every item", "10", "48"]
    exact, narrow, as_wide_as_the_catalogue = rows
    assert 0 <= narrow["equal_lists"] <= as_wide_as_the_catalogue["equal_lists"] == exact["equal_lists"] == 1
    for metric in ("recall@10", "ndcg@10"):
        assert as_wide_as_the_catalogue[metric] == exact[metric] > 0.5
    assert all(row["users"] == 48 and row["cpu_ms_per_user"] > 0 for row in rows)


@pytest.mark.slow
def test_items_are_added_and_removed_at_each_size() -> None:
    rows = printed("items", "--items 300 600 --new 20")["rows"]
    assert [(row["items"], row["new"]) for row in rows] == [(300, 20), (600, 20)]
    for row in rows:
        assert row["add_many_s"] >= 0
        assert row["version_mb"] < row["model_mb"]


@pytest.mark.slow
def test_scale_measures() -> None:
    small = "--parts trie dedup --catalogs 500 --tuples 500 --seconds 0.01"
    measured = printed_by_process("scale", small)["measured"]
    (trie,) = measured["trie"]
    assert (trie["items"], trie["codes_bytes_per_item"]) == (500, 32)
    assert 20 < trie["trie_bytes_per_item"] < 100
    assert measured["dedup"]["largest_group"] >= 1


def test_scale_plans(tmp_path: Path) -> None:
    sizes = {"trie_bytes_per_item": 40, "codes_bytes_per_item": 32, "ids_bytes_per_item": 28}
    measured = {
        "trie": [{"items": 500, "trie_seconds": 0.1, **sizes}],
        "dedup": {"items": 500, "seconds": 0.1},
        "search": [{"items": 500, "users_per_second": {"slow": 1.0, "fast": 100.0}}],
        "dense": [{"items": 500, "users_per_second": 1.0}],
        "text": {"texts_per_second": 50.0},
        "tokenizer": {"steps_per_second": 10.0, "items_tokenized_per_second": 1000.0},
        "training": {"items_per_second": {"slow": 1.0, "fast": 1000.0}},
        "storage": {
            "history_bytes_per_user": 100,
            "recommendation_bytes_per_user": 200,
            "sequence_bytes_per_interaction": 12,
        },
    }
    (tmp_path / "scale.json").write_text(json.dumps({"measured": measured}))
    plan = printed("scale", "--items 36e6 --users 72e6", "--plan", tmp_path / "scale.json")["plan"]
    assert plan["core_hours"]["texts"] == 200
    assert plan["core_hours"]["tokenizing"] == 10
    assert plan["core_hours"]["recommending, fast"] == 200
    assert plan["core_hours"]["training fast"] == 3 * 20 * 72e6 / 1000 / 3600
    assert plan["gigabytes"]["memory of a replica: trie, codes and ids"] == 3.6
    assert plan["gigabytes"]["histories"] == 7.2


@pytest.mark.slow
def test_serving_loses_no_request_at_any_load() -> None:
    rows = printed_by_process("serving", "--items 300 --connections 4 --seconds 2")["rows"]
    assert [row["load"] for row in rows] == ["closed", "closed", "paced", "reloading", "overload"]
    for row in rows:
        assert row["requests_per_second"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert (row["lost"], row["429_without_retry_after"]) == (0, 0)


@pytest.mark.slow
def test_quality_trains_each_model_for_the_given_minutes(tiny_run: Path, tmp_path: Path) -> None:
    small = "--minutes 0.02 0.04 --models hierarchical sasrec --batch 16"
    rows = printed("quality", small, "--run", tiny_run, "--figure", tmp_path / "quality.png")["rows"]
    assert [(row["model"], row["minutes"]) for row in rows] == [
        ("hierarchical", 0.02),
        ("hierarchical", 0.04),
        ("sasrec", 0.02),
        ("sasrec", 0.04),
    ]
    assert all(row["steps"] >= 1 and 0 <= row["ndcg@10"] <= 1 for row in rows)
    assert (tmp_path / "quality.png").stat().st_size > 1000


@pytest.mark.slow
def test_training_has_a_row_per_setting() -> None:
    small = "--threads 1 --widths 32 64/32 --batches 8 --steps 5 --precisions no"
    rows = printed_by_process("training", small)["rows"]
    names = ("decoder_only", "encoder_decoder", "hierarchical")
    sizes = [(row["architecture"], row["width"], row["code_width"]) for row in rows]
    assert sizes == [(name, *widths) for name in names for widths in ((32, 32), (64, 32))]
    assert all(row["targets_per_second"] > 0 and row["epoch_seconds"] > 0 for row in rows)
    assert all(0 < row["share_of_matmul"] < 1 and 0 < row["data_share"] < 1 for row in rows)


@pytest.mark.slow
def test_training_in_two_processes_shares_a_batch_and_prints_once() -> None:
    small = "--threads 1 --architectures hierarchical --widths 32 --batches 9 --steps 2 --precisions no"
    launcher = "-m torch.distributed.run --standalone --nproc_per_node 2"
    (row,) = printed_by_process("training", small, launcher)["rows"]
    assert (row["processes"], row["batch"]) == (2, 8)


@pytest.mark.slow
def test_honest_clients_are_answered_under_attack_and_during_changes() -> None:
    result = printed_by_process("disturbed", "--items 300 --rate 5 --seconds 4 --rounds 2")
    assert {load: len(ratios) for load, ratios in result["p99_ratios"].items()} == {
        "attacked": 2,
        "changing": 2,
    }
    assert len(result["rounds"]) == 2
    for rows in result["rounds"]:
        for load in ("quiet", "attacked", "changing"):
            assert (rows[load]["requests"], rows[load]["errors"]) == (20, {})
        assert min(rows["attacked"]["attempts"].values()) > 0
        assert len(rows["attacked"]["attempts"]) == 11
        assert rows["changing"]["changes"]["reloads"] > 0


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_every_stage(tmp_path: Path) -> None:
    command = ["bash", str(BENCHMARKS / "gpu.sh"), str(tmp_path / "out"), "cpu", "small"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in (tmp_path / "out" / "seconds.txt").read_text().splitlines()]
    assert names[-4:] == ["batch-recommend", "training", "decoding", "serving"]
    for name in names:
        assert json.loads((tmp_path / "out" / f"{name}.json").read_text())
