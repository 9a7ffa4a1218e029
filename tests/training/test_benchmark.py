import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def rows_of(*launcher: str, options: str) -> list[dict[str, Any]]:
    command = [
        sys.executable,
        *launcher,
        str(ROOT / "benchmarks" / "training.py"),
        "--json",
        *options.split(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["rows"]


@pytest.mark.slow
def test_the_benchmark_prints_one_json_object_with_a_row_a_setting() -> None:
    rows = rows_of(options="--threads 1 --widths 32 64/32 --batches 8 --steps 5 --precisions no")
    names = ("decoder_only", "encoder_decoder", "hierarchical")
    sizes = [(row["architecture"], row["width"], row["code_width"]) for row in rows]
    assert sizes == [(name, *widths) for name in names for widths in ((32, 32), (64, 32))]
    assert all(row["targets_per_second"] > 0 and row["epoch_seconds"] > 0 for row in rows)
    assert all(0 < row["share_of_matmul"] < 1 and 0 < row["data_share"] < 1 for row in rows)


@pytest.mark.slow
def test_two_processes_share_a_batch_and_print_once() -> None:
    (row,) = rows_of(
        *("-m", "torch.distributed.run", "--nproc_per_node", "2"),
        options="--threads 1 --architectures hierarchical --widths 32 --batches 9 --steps 2 --precisions no",
    )
    assert (row["processes"], row["batch"]) == (2, 8)
