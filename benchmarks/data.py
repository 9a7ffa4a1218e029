"""Time and peak memory of preparing a CSV with the size and format of MovieLens 32M, by number of rows.

The ratings are those of MovieLens latest-small, tiled and perturbed: new users in each tile, shifted times, and
movies spread over nine copies of the catalogue. Each run is a separate process, to measure its own peak. If
pandas is installed, a straightforward pandas version is measured as well, up to 4M rows.

    python benchmarks/data.py --latest-small FOLDER --json
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl

ROWS = (1_000_000, 4_000_000, 16_000_000, 32_000_000)
PANDAS_ROWS = 4_000_000
COPIES = 9  # of the catalogue: 87,678 movies; MovieLens 32M has 87,585
COPY_STEP = 200_000  # between the ids of copies of a movie


def write_csv(latest_small: Path, folder: Path, rows: int) -> None:
    """Write movies.csv, and ratings.csv with `rows` rows grouped by user as in the official file."""
    movies = pl.read_csv(latest_small / "movies.csv")
    copies = [movies.with_columns(movieId=pl.col("movieId") + copy * COPY_STEP) for copy in range(COPIES)]
    pl.concat(copies).write_csv(folder / "movies.csv")
    listed = movies["movieId"].implode()
    ratings = pl.read_csv(latest_small / "ratings.csv").filter(pl.col("movieId").is_in(listed))
    ratings = ratings.sort("userId", maintain_order=True)
    rng = np.random.default_rng(0)
    users, written = ratings["userId"].max(), 0
    with (folder / "ratings.csv").open("wb") as file:
        for tile in range(-(-rows // len(ratings))):
            part = ratings.head(rows - written)
            moved = part.with_columns(
                userId=pl.col("userId") + tile * users,
                movieId=pl.col("movieId") + pl.Series(rng.integers(0, COPIES, len(part)) * COPY_STEP),
                timestamp=pl.col("timestamp") + pl.Series(rng.integers(0, 100_000_000, len(part))),
            )
            moved.write_csv(file, include_header=tile == 0)
            written += len(part)


def with_rqrec(folder: Path) -> int:
    """The whole command: read, index, sort, write the artefact. Returns the number of interactions."""
    from rqrec.data.dataset import Dataset
    from rqrec.stages.prepare import PrepareConfig, prepare

    dataset = Dataset.read(prepare(PrepareConfig("movielens", "latest-small"), folder, folder / "dataset"))
    return len(dataset.sequences.items)


def with_pandas(folder: Path) -> int:
    """A straightforward pandas version: only the sequences, in memory."""
    import pandas as pd

    movies = pd.read_csv(folder / "movies.csv")
    ratings = pd.read_csv(folder / "ratings.csv")
    index = pd.Series(range(len(movies)), index=movies["movieId"])
    ratings["item"] = ratings["movieId"].map(index)
    ordered = ratings.sort_values(["userId", "timestamp"], kind="stable")
    sequences = ordered.groupby("userId", sort=False)["item"].apply(list)
    return sum(map(len, sequences))


def measure(tool: str, folder: Path) -> dict[str, float | int | str]:
    """Run one tool in a separate process."""
    command = [sys.executable, __file__, "--measure", tool, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--latest-small", type=Path, help="folder with movies.csv and ratings.csv")
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        tool, folder = options.measure
        start, start_cpu = time.perf_counter(), time.process_time()
        interactions = {"rqrec": with_rqrec, "pandas": with_pandas}[tool](Path(folder))
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux: KiB
        row = {"rows": interactions, "seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}
        print(json.dumps({**row, "peak_gib": round(peak, 2)}))
        return
    if not options.latest_small:
        parser.error("--latest-small is required: the folder of MovieLens latest-small")
    results = []
    for rows in options.rows:
        folder = Path(tempfile.mkdtemp(prefix="rqrec-benchmark-"))
        try:
            write_csv(options.latest_small, folder, rows)
            tools = ["rqrec", "pandas"] if rows <= PANDAS_ROWS and find_spec("pandas") else ["rqrec"]
            for tool in tools:
                results.append({"tool": tool, **measure(tool, folder)})
                print(results[-1], file=sys.stderr)
        finally:
            shutil.rmtree(folder)
    if options.json:
        print(json.dumps({"benchmark": "data", "results": results}))


if __name__ == "__main__":
    main()
