"""The data benchmark runs on few rows, and the CSV that it generates is in the official format."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "data.py"


def test_the_benchmark_runs_on_few_rows(shared_data: Path) -> None:
    command = [sys.executable, str(BENCHMARK), "--latest-small", str(shared_data / "ml-latest-small")]
    done = subprocess.run(
        [*command, "--rows", "150000", "--json"], capture_output=True, text=True, check=True
    )
    results = json.loads(done.stdout)["results"]
    assert {result["rows"] for result in results} == {150_000}
    assert results[0]["tool"] == "rqrec"
    assert results[0]["seconds"] > 0
    assert results[0]["peak_gib"] < 2
