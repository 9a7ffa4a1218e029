"""The benchmarks run, small."""

import json
import subprocess
import sys
from pathlib import Path

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
    names = ["decoder_only", "encoder_decoder", "hierarchical", "t5_generate"]
    assert [row["architecture"] for row in rows] == names
    for row in rows:
        assert row["items"] == 300
        assert row["users_per_second"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]
