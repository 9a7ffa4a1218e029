"""The benchmarks run, small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_decoding_measures_each_architecture() -> None:
    small = [
        "--items",
        "300",
        "--beams",
        "4",
        "--threads",
        "1",
        "--batch",
        "2",
        "--seconds",
        "0.01",
        "--json",
    ]
    command = [sys.executable, str(ROOT / "benchmarks" / "decoding.py"), *small]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)["rows"]
    assert [row["architecture"] for row in rows] == ["decoder_only", "encoder_decoder", "hierarchical"]
    for row in rows:
        assert row["items"] == 300
        assert row["users_per_second"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]


@pytest.mark.slow
def test_serving_loses_nothing_at_any_load() -> None:
    small = ["--items", "300", "--connections", "4", "--seconds", "2", "--json"]
    command = [sys.executable, str(ROOT / "benchmarks" / "serving.py"), *small]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)["rows"]
    assert [row["load"] for row in rows] == ["closed", "closed", "paced", "reloading", "overload"]
    for row in rows:
        assert row["requests_per_second"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert (row["lost"], row["429_without_retry_after"]) == (0, 0)
