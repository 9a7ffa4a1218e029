"""The report of the demo, made from the artefacts of its stages.

Shapes: N items, L levels.
"""

import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from rqrec.core.artifact import atomic_write, read_json, read_manifest
from rqrec.data.dataset import Dataset
from rqrec.evaluation.evaluation_report import SEEN_METRICS
from rqrec.evaluation.figures import draw_bars, draw_code_counts, draw_curves
from rqrec.evaluation.glossary import glossary
from rqrec.evaluation.report import figure, heading, link, paragraph, save_report, shell, table
from rqrec.evaluation.results_io import EVALUATION_FILE
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.tracking import History

TABLE_FILE = "table.md"
EVALUATIONS = ("evaluation", "evaluation_popularity")  # of the model and of popularity
WORDS = (
    *("recall@10", "NDCG@10", "popularity", "seen items", "validation and test", "probability"),
    *("semantic ID", "code, level", "collision", "perplexity", "loss"),
)
PAGE = "http://127.0.0.1:8000/"  # where `rqrec serve` serves it
RECENT = 8  # number of items of the sample user's history to show


def write_report(folder: Path, facts: dict[str, Any]) -> None:
    """Write `report.md`, `report.html` with figures, and `table.md`, that of docs/start.md, into the demo's folder.

    `facts` is what `rqrec demo --json` prints.
    """
    blocks = [
        *_result(folder, facts),
        *_sample(folder, facts),
        *_page(folder, facts),
        *_codes(folder, facts),
        *_training(folder),
        heading("Time"),
        table(["stage", "seconds"], [[stage, round(spent)] for stage, spent in facts["seconds"].items()]),
        *glossary(WORDS),
    ]
    save_report(folder, "Recommendations from semantic IDs: MovieLens 100K", blocks)
    with atomic_write(folder / TABLE_FILE) as file:
        file.write(f"{result_table(folder)}\n".encode())


def result_table(folder: Path) -> str:
    """The table of docs/start.md, in Markdown: test metrics with seen items excluded, and with seen items allowed."""
    model, popularity = (read_json(folder / name / EVALUATION_FILE) for name in EVALUATIONS)
    rows = {
        "decoder-only, selected on validation": model["seen_items"]["excluded"],
        "popularity, same evaluator": popularity["seen_items"]["excluded"],
        "decoder-only, seen items allowed": model["seen_items"]["allowed"],
        "popularity, seen items allowed": popularity["seen_items"]["allowed"],
    }
    return table(
        ["", *SEEN_METRICS],
        [[name, *(row["metrics"][metric] for metric in SEEN_METRICS)] for name, row in rows.items()],
    )


def _points(records: list[dict[str, float]], name: str) -> list[tuple[float, float]]:
    return [(record["step"], record[name]) for record in records]


def _result(folder: Path, facts: dict[str, Any]) -> list[str]:
    dataset = read_manifest(folder / "dataset", "dataset").metrics
    names = ["recall@1", "recall@5", "recall@10", "ndcg@5", "ndcg@10"]
    series = {name: [facts[name][metric] for metric in names] for name in ("model", "popularity")}
    draw_bars(folder / "metrics.png", names, series)
    retrieval = read_manifest(folder / "retrieval", "retrieval")
    best = retrieval.metrics["validation"]
    return [
        paragraph(
            f"{dataset['users']:,} users, {dataset['items']:,} films, {dataset['interactions']:,} ratings. Each "
            f"user's last film is for the test, the one before it for validation, the others for training. The "
            f"ranking covers all films that the user has not rated before, and a hit is the right film, not the "
            f"right code."
        ),
        heading("Comparison with popularity"),
        result_table(folder),
        figure("metrics.png", "Test metrics of the model and of popularity, under the same protocol"),
        paragraph(
            f"The model ({retrieval.metrics['parameters']:,} parameters) was selected by validation ndcg@10 "
            f"({best['ndcg@10']:.4f} at step {best['step']:.0f}) and tested once, with one seed."
        ),
    ]


def _sample(folder: Path, facts: dict[str, Any]) -> list[str]:
    dataset = Dataset.read(folder / "dataset")
    titles = dataset.catalog.titles()
    recent = [titles[item] for item in dataset.sequences.of_user(0)[-RECENT:]]
    rows: list[list[str | int | float]] = [
        [rank, item["title"], f"{math.exp(item['score']):.1%}", "-".join(map(str, item["semantic_id"]))]
        for rank, item in enumerate(facts["recommendations"], start=1)
    ]
    return [
        heading(f"Ten recommendations for user {facts['sample_user']}"),
        paragraph("The films rated last, oldest first: " + "; ".join(recent) + "."),
        table(["", "film", "probability", "semantic ID"], rows),
    ]


def _page(folder: Path, facts: dict[str, Any]) -> list[str]:
    user = facts["sample_user"]
    return [
        heading("Try it"),
        paragraph("The page shows why each film is recommended, and a map of all films. Serve it with:"),
        shell(f"rqrec serve --artifact {shlex.quote(str(folder))}"),
        paragraph("and open (if it serves at another address, put that before the question mark):"),
        link(f"the page with the history of user {user}", f"{PAGE}?user={user}"),
    ]


def _codes(folder: Path, facts: dict[str, Any]) -> list[str]:
    id_table = SemanticIdTable.read(folder / "semantic_ids")
    sizes = id_table.level_sizes[:-1]
    counts = [np.bincount(id_table.codes_NL[:, level], minlength=size) for level, size in enumerate(sizes)]
    draw_code_counts(folder / "codes.png", counts)
    perplexity = read_manifest(folder / "semantic_ids", "semantic_ids").metrics["perplexity"]
    rows: list[list[str | int | float]] = [
        [f"{level + 1}", size, f"{facts['codebook_usage'][level]:.1%}", f"{perplexity[level]:.0f}"]
        for level, size in enumerate(sizes)
    ]
    return [
        heading("The semantic IDs"),
        paragraph(
            f"{facts['collision_rate']:.1%} of the films share their {len(sizes)} codes with another film; one more "
            f"code makes every tuple unique."
            if facts["collision_rate"]
            else f"No two films have the same {len(sizes)} codes, so the last code of each semantic ID is 0."
        ),
        table(["level", "codes", "share used", "perplexity"], rows),
        figure("codes.png", "Films per code, by level"),
    ]


def _training(folder: Path) -> list[str]:
    tokenizer, retrieval = History.read(folder / "tokenizer" / "rqvae"), History.read(folder / "retrieval")
    draw_curves(
        folder / "tokenizer.png",
        {
            "RQ-VAE loss": {
                name: _points(tokenizer.training, name)
                for name in ("reconstruction", "codebook", "commitment")
            }
        },
    )
    levels = sorted(name for name in retrieval.training[0] if name.startswith("loss_level_"))
    draw_curves(
        folder / "retrieval.png",
        {
            "retrieval loss (nats)": {
                f"level {number}": _points(retrieval.training, name)
                for number, name in enumerate(levels, start=1)
            },
            "validation": {name: _points(retrieval.validation, name) for name in ("recall@10", "ndcg@10")},
        },
    )
    return [
        heading("Training"),
        figure("tokenizer.png", "Loss of the RQ-VAE"),
        figure("retrieval.png", "Loss of the retrieval model by level, and validation metrics"),
    ]
