"""Peak resident memory of each stage of the recipe, on the dataset of a run or a synthetic one.

Each stage is a process of its own, which starts as a command or a worker of `rqrec reproduce` does. Memory is in MB
(2^20 bytes) and needs Linux. Trainings are cut to `--steps` steps. A synthetic catalogue has random embeddings, or
with `--words` random texts, which are encoded; that needs the extra `demo`.

    python benchmarks/memory.py --run out/amazon-beauty --json
    python benchmarks/memory.py --items 100000 --users 200000
    python benchmarks/memory.py --items 2000 --users 2000 --words 400 --stages prepare embed
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from rqrec.core.artifact import find
from rqrec.core.memory import resident_mb

DIM = 384  # of random embeddings
INTERACTIONS = 9  # of a user, on average; as in Amazon Beauty
STAGES = (
    "import",
    "prepare",
    "embed",
    "fit-rqkmeans",
    "tokenize",
    "train-decoder",
    "train-sasrec",
    "join",
    "evaluate",
)


def write_files(folder: Path, items: int, users: int, words: int) -> None:
    """A log, and items with random texts or embeddings: log.csv, items.csv and vectors.npy."""
    rng = np.random.default_rng(0)
    lengths = 3 + rng.poisson(INTERACTIONS - 3, users)
    item_of_row = (items * rng.random(lengths.sum()) ** 2).astype(np.int64)  # lower items are more popular
    log = pl.DataFrame({"user_id": np.repeat(np.arange(users), lengths), "item_id": item_of_row})
    log.with_row_index("timestamp", offset=1_000_000_000).write_csv(folder / "log.csv")
    table = pl.DataFrame({"item_id": np.arange(items)})
    if words:
        vocabulary = np.array(["blue", "steel", "kettle", "for", "two", "litres", "of", "water"])
        texts = (" ".join(row) for row in vocabulary[rng.integers(0, len(vocabulary), (items, words))])
        table = table.with_columns(text=pl.Series([f"{text} {item}" for item, text in enumerate(texts)]))
    else:
        np.save(folder / "vectors.npy", rng.normal(size=(items, DIM)).astype(np.float32))
    table.write_csv(folder / "items.csv")


def stages(folder: Path, dataset: Path, steps: int) -> dict[str, Callable[[], Any]]:
    """By name, a function that runs a stage with the settings of the recipe."""
    from rqrec.core.config import configured
    from rqrec.data.sources.custom import CustomFiles
    from rqrec.experiments.reproduce import RECIPE
    from rqrec.stages.embed import EmbedConfig, embed
    from rqrec.stages.evaluate import EvaluateConfig, evaluate
    from rqrec.stages.fit_rqkmeans import FitRqKMeansConfig, fit_rqkmeans
    from rqrec.stages.join import JoinConfig, join
    from rqrec.stages.prepare import PrepareConfig, prepare
    from rqrec.stages.tokenize import TokenizeConfig, tokenize
    from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
    from rqrec.stages.train_sasrec import TrainSasRecConfig, train_sasrec

    embeddings, tokenizer, table = folder / "embeddings", folder / "rqkmeans", folder / "semantic_ids"
    random_vectors = folder / "vectors.npy" if (folder / "vectors.npy").is_file() else None

    def recipe(config: Any, name: str) -> Any:
        return configured(config, [name], [RECIPE])

    def training(config: Any, name: str) -> Any:
        """The recipe cut to some steps, with one validation at the end."""
        full = recipe(config, name)
        return replace(
            full,
            epochs=0,
            validations=1,
            loop=replace(full.loop, iterations=steps, warmup=min(full.loop.warmup, steps - 1)),
            checkpoints=replace(full.checkpoints, save_dir_root=folder),
        )

    return {
        "import": lambda: None,
        "prepare": lambda: prepare(
            PrepareConfig("custom"),
            CustomFiles(folder / "log.csv", folder / "items.csv", random_vectors),
            dataset,
        ),
        "embed": lambda: embed(recipe(EmbedConfig(), "embed"), dataset, embeddings, vectors=random_vectors),
        "fit-rqkmeans": lambda: fit_rqkmeans(
            recipe(FitRqKMeansConfig(), "fit_rqkmeans"), embeddings, tokenizer
        ),
        "tokenize": lambda: tokenize(TokenizeConfig(), tokenizer, embeddings, table, dataset=dataset),
        "train-decoder": lambda: train_decoder(
            training(TrainDecoderConfig(), "train_decoder"),
            dataset=dataset,
            semantic_ids=table,
            embeddings=embeddings,
        ),
        "train-sasrec": lambda: train_sasrec(
            training(TrainSasRecConfig(), "train_sasrec"), dataset=dataset, embeddings=embeddings
        ),
        "join": lambda: join(
            recipe(JoinConfig(), "join"),
            [folder / "retrieval", folder / "sasrec"],
            dataset,
            folder / "joined",
            embeddings=embeddings,
        ),
        "evaluate": lambda: evaluate(EvaluateConfig(), folder / "joined", dataset, out=folder / "evaluation"),
    }


def run_stage(name: str, folder: Path, dataset: Path, steps: int) -> dict[str, Any]:
    """Run a stage in this process, which must be a new one."""
    work = stages(folder, dataset, steps)[name]
    before, start = resident_mb(), time.perf_counter()
    work()
    seconds = round(time.perf_counter() - start, 1)
    return {"stage": name, "before": round(before), "peak": round(resident_mb("VmHWM")), "seconds": seconds}


def measure(names: Sequence[str], folder: Path, dataset: Path, steps: int) -> list[dict[str, Any]]:
    """Run the stages, each in a process of its own."""
    rows = []
    for name in names:
        command = [sys.executable, __file__, "--stage", name, str(folder), str(dataset), str(steps)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder with a dataset")
    parser.add_argument("--items", type=int, default=12_101, help="of the synthetic catalogue")
    parser.add_argument("--users", type=int, default=22_363, help="of the synthetic log")
    parser.add_argument("--words", type=int, default=0, help="of each text; 0: random embeddings, no texts")
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--stage", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        name, folder, dataset, steps = options.stage
        print(json.dumps(run_stage(name, Path(folder), Path(dataset), int(steps))))
        return
    with TemporaryDirectory(prefix="rqrec-memory-") as scratch:
        folder, names = Path(scratch), list(options.stages)
        if options.run:
            dataset = find(options.run, "dataset")
            names = [name for name in names if name != "prepare"]
        else:
            dataset = folder / "dataset"
            write_files(folder, options.items, options.users, options.words)
        rows = measure(names, folder, dataset, options.steps)
    if options.json:
        print(json.dumps({"rows": rows}))
    else:
        for row in rows:
            print("  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
