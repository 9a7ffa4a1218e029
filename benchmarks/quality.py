"""Validation quality by training time, for the three architectures and SASRec.

Each point is a separate training run, whose schedule fits its time limit; all use the same dataset and torch's
default number of threads. The test split is not used. Drawing the figure needs the extra `demo`.

    python benchmarks/quality.py --run out/amazon-beauty --minutes 1 2 5 10 --json
    python benchmarks/quality.py --run out/demo --models hierarchical sasrec --minutes 0.5 1 --figure quality.png
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rqrec.core.artifact import find, read_manifest
from rqrec.models.architectures import ARCHITECTURES
from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
from rqrec.stages.train_sasrec import TrainSasRecConfig, train_sasrec
from rqrec.training.checkpoint import CheckpointConfig
from rqrec.training.loop_config import LoopConfig

SASREC = "sasrec"
VALIDATION_USERS = 4000
MAX_STEPS = 1_000_000  # the time limit stops training long before


def trainings(run: Path, batch_size: int) -> dict[str, Callable[[LoopConfig, CheckpointConfig], Path]]:
    """By model name, a function that trains it and returns its artefact."""
    dataset, semantic_ids = find(run, "dataset"), find(run, "semantic_ids")

    def semantic_id_model(name: str, loop: LoopConfig, checkpoints: CheckpointConfig) -> Path:
        config = TrainDecoderConfig(
            loop=loop,
            checkpoints=checkpoints,
            architecture=name,
            batch_size=batch_size,
            validation_users=VALIDATION_USERS,
        )
        return train_decoder(config, dataset=dataset, semantic_ids=semantic_ids)

    def sasrec(loop: LoopConfig, checkpoints: CheckpointConfig) -> Path:
        config = TrainSasRecConfig(loop=loop, checkpoints=checkpoints, batch_size=batch_size)
        return train_sasrec(config, dataset=dataset)

    return {**{name: partial(semantic_id_model, name) for name in ARCHITECTURES}, SASREC: sasrec}


def measure(
    train: Callable[[LoopConfig, CheckpointConfig], Path],
    name: str,
    minutes: float,
    learning_rate: float,
    seed: int,
) -> dict[str, Any]:
    """One point: the validation metrics of the best weights after training for this many minutes."""
    config = LoopConfig(
        iterations=MAX_STEPS,
        learning_rate=learning_rate,
        weight_decay=0.05,
        warmup=100,
        max_minutes=minutes,
        full_eval_every=0,
        seed=seed,
    )
    with TemporaryDirectory(prefix="rqrec-quality-") as scratch:
        metrics = read_manifest(train(config, CheckpointConfig(Path(scratch)))).metrics
    best = metrics["validation"]
    return {
        "model": name,
        "minutes": minutes,
        "steps": int(best["step"]),
        "parameters": metrics["parameters"],
        **{metric: round(best[metric], 4) for metric in ("recall@5", "ndcg@5", "recall@10", "ndcg@10")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = [*ARCHITECTURES, SASREC]
    parser.add_argument("--run", type=Path, required=True, help="folder with a dataset and semantic IDs")
    parser.add_argument("--models", nargs="+", default=names, choices=names)
    parser.add_argument("--minutes", nargs="+", type=float, default=[1, 2, 5, 10])
    parser.add_argument("--batch", type=int, default=256, help="sequences per step")
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, help="draw the curves to this .png file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    train_named = trainings(options.run, options.batch)
    rows = []
    for name in options.models:
        for minutes in options.minutes:
            rows.append(measure(train_named[name], name, minutes, options.learning_rate, options.seed))
            if not options.json:
                print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if options.figure:
        from rqrec.evaluation.figures import draw_curves

        curves = {
            name: [(row["minutes"], row["ndcg@10"]) for row in rows if row["model"] == name]
            for name in options.models
        }
        draw_curves(options.figure, {"validation NDCG@10": curves}, x_label="minutes of training")
    if options.json:
        print(json.dumps({"seed": options.seed, "batch": options.batch, "rows": rows}))


if __name__ == "__main__":
    main()
