"""Validation quality against minutes of training, for the three architectures and SASRec.

Each point is a training of its own, whose schedule fits its minutes; all of them see the same dataset, on the cores
that torch takes. Nothing is measured on the test split. The figure is drawn with the extra `demo`.

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
from rqrec.models.architectures import ARCHITECTURES, architecture
from rqrec.stages.train_decoder import train_decoder
from rqrec.stages.train_sasrec import train_sasrec
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.loop import LoopConfig

SASREC = "sasrec"
MOST_STEPS = 1_000_000  # the minutes end it


def trainings(run: Path, batch_size: int) -> dict[str, Callable[[Path, LoopConfig], object]]:
    """By the name of a model: what trains it to an artefact in a folder."""
    dataset, table = find(run, "dataset"), find(run, "semantic_ids")
    level_sizes = SemanticIdTable.read(table).level_sizes

    def ours(name: str, folder: Path, settings: LoopConfig) -> object:
        config = architecture(name).config(level_sizes)
        return train_decoder(
            dataset, table, folder, config, settings, batch_size=batch_size, validation_users=4000
        )

    def sasrec(folder: Path, settings: LoopConfig) -> object:
        return train_sasrec(dataset, folder, settings, batch_size=batch_size)

    return {**{name: partial(ours, name) for name in ARCHITECTURES}, SASREC: sasrec}


def measure(
    train: Callable[[Path, LoopConfig], object], name: str, minutes: float, learning_rate: float, seed: int
) -> dict[str, Any]:
    """One point: what the best weights of a training of so many minutes reach on validation."""
    settings = LoopConfig(
        iterations=MOST_STEPS,
        learning_rate=learning_rate,
        weight_decay=0.05,
        warmup=100,
        max_minutes=minutes,
        full_eval_every=0,
        seed=seed,
    )
    with TemporaryDirectory(prefix="rqrec-quality-") as scratch:
        folder = Path(scratch) / "model"
        train(folder, settings)
        facts = read_manifest(folder).metrics
    best = facts["validation"]
    return {
        "model": name,
        "minutes": minutes,
        "steps": int(best["step"]),
        "parameters": facts["parameters"],
        **{metric: round(best[metric], 4) for metric in ("recall@5", "ndcg@5", "recall@10", "ndcg@10")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = [*ARCHITECTURES, SASREC]
    parser.add_argument("--run", type=Path, required=True, help="folder with a dataset and semantic IDs")
    parser.add_argument("--models", nargs="+", default=names, choices=names)
    parser.add_argument("--minutes", nargs="+", type=float, default=[1, 2, 5, 10])
    parser.add_argument("--batch", type=int, default=256, help="sequences of a step")
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, help="draw it to this file, .png")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    train_named = trainings(chosen.run, chosen.batch)
    rows = []
    for name in chosen.models:
        for minutes in chosen.minutes:
            rows.append(measure(train_named[name], name, minutes, chosen.learning_rate, chosen.seed))
            if not chosen.json:
                print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if chosen.figure:
        from rqrec.evaluation.figures import draw_curves

        curves = {
            name: [(row["minutes"], row["ndcg@10"]) for row in rows if row["model"] == name]
            for name in chosen.models
        }
        draw_curves(chosen.figure, {"validation NDCG@10": curves}, x_label="minutes of training")
    if chosen.json:
        print(json.dumps({"seed": chosen.seed, "batch": chosen.batch, "rows": rows}))


if __name__ == "__main__":
    main()
