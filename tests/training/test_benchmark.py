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
    names = ("decoder_only", "encoder_decoder", "hierarchical")
    assert [(row["architecture"], row["width"]) for row in rows] == [
        (name, width) for name in names for width in (8, 16)
    ]
    assert all(row["targets_per_second"] > 0 and row["epoch_seconds"] > 0 for row in rows)
    assert all(0 < row["share_of_matmul"] < 1 and 0 < row["data_share"] < 1 for row in rows)
