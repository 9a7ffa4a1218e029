import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_benchmark_prints_one_json_object_with_a_row_a_setting() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "training.py"), "--json", "--threads", "1"]
    command += ["--widths", "8", "16", "--batches", "8", "--steps", "1", "--precisions", "no"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)["rows"]
    assert [(row["width"], row["precision"]) for row in rows] == [(8, "no"), (16, "no")]
    assert all(0 < row["share_of_matmul"] < 1 and 0 < row["data_share"] < 1 for row in rows)
