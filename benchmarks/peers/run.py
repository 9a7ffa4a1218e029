"""Measure other packages beside rqrec, and write docs/benchmarks.md.

    python benchmarks/peers/run.py --out out/peers
    python benchmarks/peers/run.py --out out/peers --run out/amazon-beauty --peers recbole implicit --minutes 5
    python benchmarks/peers/run.py --out out/peers --rows page

Each package gets an environment of its own in OUT/envs, from the package index; each row is one process of one
thread, which starts from the same exported data and trains for the same CPU minutes. A row that has been measured is
kept: remove its file in OUT/results to measure it again.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from page import write_page
from rows import MODELS, OURS, TOKENIZERS, Row
from split import evaluate, export, measure_codes

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "benchmarks.md"
PARTS = ("quality", "tokenizers", "decoding", "csv", "page")
RECOMMEND_MINUTES = 5.0
OVERHEAD_MINUTES = 20.0  # importing, converting data, tokenizers; beyond it a process is ended
CSV_ROWS = (1_000_000, 4_000_000)
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS"),
    "1",
)


def environment(package: str, out: Path) -> Path:
    """The Python of a package's environment, which is made if it is missing or was made from other requirements."""
    if package == OURS:
        return Path(sys.executable)
    folder, requirements = out / "envs" / package, HERE / f"requirements-{package}.txt"
    python, made_from = folder / "bin" / "python", folder / "requirements.txt"
    if made_from.exists() and made_from.read_text() == requirements.read_text():
        return python
    if uv := shutil.which("uv"):
        make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)]
        install = [uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(requirements)]
    else:
        make = [sys.executable, "-m", "venv", "--clear", str(folder)]
        install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
    for command in (make, install):
        checked(command)
    shutil.copyfile(requirements, made_from)
    return python


def checked(command: list[str], folder: Path | None = None, cpu_minutes: float | None = None) -> str:
    """Standard output of a command, run in `folder`. Raises RuntimeError with its last line of errors."""

    def limit() -> None:
        if cpu_minutes is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (int(60 * cpu_minutes),) * 2)

    variables = {**os.environ, **ONE_THREAD}
    done = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=limit, env=variables, cwd=folder
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(lines[-1])
    return done.stdout


def measure_row(row: Row, minutes: float, out: Path, run: Path) -> dict[str, Any]:
    """Run an adapter, and evaluate what it wrote."""
    python, split = environment(row.package, out), out / "split"
    with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
        folder = Path(scratch)
        command = [str(python), str(HERE / row.script), str(split), scratch, "--minutes", str(minutes)]
        command += ["--recommend-minutes", str(RECOMMEND_MINUTES)]
        command += ["--variant", row.variant] if row.variant else []
        command += ["--run", str(run)] if row.is_ours else []
        checked(command, folder, minutes + RECOMMEND_MINUTES + OVERHEAD_MINUTES)
        facts = json.loads((folder / "facts.json").read_text())
        if (folder / "codes.npy").exists():
            return facts | measure_codes(np.load(folder / "codes.npy"))
        with np.load(folder / "lists.npz") as arrays:
            return facts | evaluate(split, arrays["users"], arrays["lists"])


def measured(key: str, out: Path, measure: Any) -> None:
    """Measure into OUT/results unless that is there. A failure is recorded, and tried again next time."""
    file = out / "results" / f"{key}.json"
    if file.exists() and "failed" not in json.loads(file.read_text()):
        print(f"{key}: kept", flush=True)
        return
    try:
        result = measure()
    except (RuntimeError, OSError, ValueError) as error:
        result = {"failed": str(error)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{key}: {json.dumps(result)}", flush=True)


def decoding() -> dict[str, Any]:
    """Ours beside Hugging Face's T5 with a prefix function: random weights, 12,101 items, beam 50."""
    options = (
        "--architectures hierarchical encoder_decoder t5_generate --items 12101 --beams 50 --threads 1 --json"
    )
    return json.loads(checked([sys.executable, str(HERE.parent / "decoding.py"), *options.split()]))


def csv(latest_small: Path, rows: int, out: Path) -> dict[str, Any]:
    """From a CSV of MovieLens 32M's format to sequences: `rqrec prepare` beside plain pandas."""
    sys.path.append(str(HERE.parent))
    from data import write_csv

    results = {}
    for tool, package in (("rqrec", OURS), ("pandas", "pandas")):
        python = environment(package, out)
        with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
            write_csv(latest_small, Path(scratch), rows)
            results[tool] = json.loads(
                checked([str(python), str(HERE.parent / "data.py"), "--measure", tool, scratch])
            )
    return results


def inputs(out: Path, data_dir: Path) -> Path:
    """The run folder with Amazon Beauty's dataset, embeddings and semantic IDs, made by the stages of the recipe."""
    from rqrec.experiments.reproduce import SOURCES, make_inputs
    from rqrec.experiments.run import Run

    folder = out / "amazon-beauty"
    make_inputs(Run(folder), SOURCES["amazon-beauty"], data_dir, None, 1)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    packages = sorted({row.package for row in (*MODELS, *TOKENIZERS)})
    parser.add_argument("--out", type=Path, required=True, help="folder for environments, data and results")
    parser.add_argument(
        "--run", type=Path, help="folder with a dataset, its embeddings and semantic IDs; made if not given"
    )
    parser.add_argument(
        "--data-dir", type=Path, default=Path("dataset/amazon"), help="raw files to make it from"
    )
    parser.add_argument("--peers", nargs="+", default=packages, choices=packages)
    parser.add_argument("--minutes", nargs="+", type=float, default=[5, 15], help="CPU minutes of training")
    parser.add_argument(
        "--rows",
        nargs="+",
        default=list(PARTS),
        choices=PARTS,
        help="what to measure; the page is always written",
    )
    parser.add_argument("--latest-small", type=Path, help="folder of MovieLens latest-small, for csv")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--note", default="", help="what readers of the page should know of the machine")
    options = parser.parse_args()
    out, chosen = options.out.resolve(), set(options.rows)
    if chosen & {"quality", "tokenizers"}:
        run = (options.run or inputs(out, options.data_dir)).resolve()
        if not (out / "split").exists():
            export(run, out / "split")
        for minutes in options.minutes if "quality" in chosen else []:
            for row in MODELS:
                if row.package in options.peers:
                    measured(
                        f"{row.key}-{minutes:g}",
                        out,
                        lambda row=row, minutes=minutes: measure_row(row, minutes, out, run),
                    )
        for row in TOKENIZERS if "tokenizers" in chosen else []:
            if row.package in options.peers:
                measured(row.key, out, lambda row=row: measure_row(row, 0, out, run))
    if "decoding" in chosen:
        measured("decoding", out, decoding)
    if "csv" in chosen and options.latest_small:
        for rows in CSV_ROWS:
            measured(f"csv-{rows}", out, lambda rows=rows: csv(options.latest_small, rows, out))
    write_page(out / "results", options.page, options.note)
    print(f"The page is {options.page}.")


if __name__ == "__main__":
    main()
