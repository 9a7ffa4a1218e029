"""The report of a comparison: protocol, tables, a figure, settings, and sentences derived from the results."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rqrec.evaluation.figures import draw_bars
from rqrec.evaluation.report import figure, heading, paragraph, save_report, table
from rqrec.experiments.compare.summary import METRICS, format_spread

FIGURE = "comparison.png"
SELECTION_METRIC = "ndcg@10"

KIND_DESCRIPTIONS = {
    "trained": "Trained IDs are the codes of a trained RQ-VAE.",
    "untrained": "Untrained IDs are the codes of an RQ-VAE before training: its encoder is a random projection, "
    "and its codebooks are initialised by k-means on the encoder's outputs.",
    "random": "Random IDs are drawn at random, regardless of the item: the model can memorise each item, but "
    "what it learns about one item does not carry over to another.",
}


def write_report(folder: Path, results: dict[str, Any], findings: str = "") -> None:
    """Write `report.md`, `report.html` and the figure; the paragraphs of `findings` are the last section."""
    summary = results["summary"]
    models = [row for row in summary if row["semantic_ids"]]
    blocks = [*_protocol(results, models), *_result(folder, summary, models), *_cost(models)]
    blocks += [*_codes(results), *_settings(results["settings"])]
    if findings.strip():
        blocks += [heading("Findings"), *map(paragraph, findings.strip().split("\n\n"))]
    save_report(folder, "Architectures and semantic IDs on equal terms", blocks)


def _protocol(results: dict[str, Any], models: Sequence[dict[str, Any]]) -> list[str]:
    dataset, sizes, training = (
        results["dataset"],
        results["settings"]["sizes"],
        results["settings"]["training"],
    )
    counts = [run["parameters"] for run in results["runs"] if "parameters" in run]
    kinds = dict.fromkeys(row["semantic_ids"] for row in models)
    seeds = sorted({run["seed"] for run in results["runs"] if "seed" in run})
    validated = min(training["validation_users"], dataset["users"])
    return [
        paragraph(
            f"{results['data']} {dataset['users']:,} users, {dataset['items']:,} items, "
            f"{dataset['interactions']:,} interactions. The protocol is leave-one-out: each user's last item is for "
            f"the test, the one before it for validation, and the others are for training. The ranking covers all "
            f"items that the user has not interacted with, and a hit is the right item, not the right code."
        ),
        paragraph(
            f"Equal parameters: every model has {min(counts):,} to {max(counts):,} trained parameters, code "
            f"embeddings included. The width follows from this number and the number of layers."
        ),
        paragraph(
            f"Equal compute: every model trains for {sizes['teraflops']:g} teraflop (10^12 floating-point "
            f"operations). These are the matrix products of all training steps, forward and backward, counted for "
            f"each step's own batch; training stops at the step where their sum is nearest to the budget. Time "
            f"would depend on the machine and its load; CPU seconds are listed below for information."
        ),
        paragraph(
            f"Every model is validated {training['validations']} times, always on the same users, at most "
            f"{validated:,} of them. The weights with the highest {SELECTION_METRIC} are tested once, on all users, "
            f"with beam width {training['beam_width']}. A seed ({', '.join(map(str, seeds))}) determines the RQ-VAE "
            f"or the random codes, and the model. ± is the standard deviation over seeds."
        ),
        paragraph(" ".join(KIND_DESCRIPTIONS[kind] for kind in kinds)),
    ]


def _result(
    folder: Path, summary: Sequence[dict[str, Any]], models: Sequence[dict[str, Any]]
) -> Iterator[str]:
    kinds = list(dict.fromkeys(row["semantic_ids"] for row in models))
    names = list(dict.fromkeys(row["name"] for row in models))
    of = {(row["name"], row["semantic_ids"]): row["test"][SELECTION_METRIC]["mean"] for row in models}
    bars = {name.replace("_", "-"): [of[name, kind] for kind in kinds] for name in names}
    draw_bars(folder / FIGURE, [f"{kind} IDs" for kind in kinds], bars, "NDCG@10, mean over seeds")
    yield heading("Result")
    yield _metrics_table("test", summary)
    yield figure(FIGURE, f"Test {SELECTION_METRIC} by semantic IDs and architecture, mean over seeds")
    yield paragraph(" ".join([*_between_architectures(models, kinds), *_between_ids(models, names)]))
    yield paragraph("On the validation users, on which the weights were selected:")
    yield _metrics_table("validation", summary)


def _metrics_table(split: str, summary: Sequence[dict[str, Any]]) -> str:
    return table(
        [split, "semantic IDs", *METRICS],
        [
            [
                row["name"],
                row["semantic_ids"] or "none",
                *(format_spread(row[split][name]) for name in METRICS),
            ]
            for row in summary
        ],
    )


def _between_architectures(models: Sequence[dict[str, Any]], kinds: Sequence[str]) -> Iterator[str]:
    """For each kind of IDs, the best architecture, and whether its lead exceeds the spread over seeds."""
    for kind in kinds:
        first, *others = _ranked([row for row in models if row["semantic_ids"] == kind])
        if others:
            yield (
                f"With {kind} IDs, {first['name']} has the highest {SELECTION_METRIC}, "
                f"{format_spread(first['test'][SELECTION_METRIC])}, {_lead(first, others[0])}."
            )


def _between_ids(models: Sequence[dict[str, Any]], names: Sequence[str]) -> Iterator[str]:
    """For each architecture, the best kind of IDs and its lead over each of the others."""
    for name in names:
        first, *others = _ranked([row for row in models if row["name"] == name])
        if others:
            yield (
                f"For {name}, {first['semantic_ids']} IDs are best: "
                f"{' and '.join(_lead(first, other, 'semantic_ids') for other in others)}."
            )


def _ranked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -row["test"][SELECTION_METRIC]["mean"])


def _lead(first: dict[str, Any], second: dict[str, Any], label: str = "name") -> str:
    high, low = first["test"][SELECTION_METRIC], second["test"][SELECTION_METRIC]
    share = f"{high['mean'] / low['mean'] - 1:.0%}" if low["mean"] else "far"
    lead = f"{share} above {second[label]} ({format_spread(low)})"
    if high["deviation"] is None or low["deviation"] is None:
        return f"{lead}, with one seed"
    if high["mean"] - low["mean"] <= high["deviation"] + low["deviation"]:
        return f"{lead}, which is within the spread over seeds"
    return lead


def _cost(models: Sequence[dict[str, Any]]) -> list[str]:
    columns = ["parameters", "steps", "teraflop", "training, s", "decoded users / s"]
    return [
        heading("Cost"),
        table(
            ["model", "semantic IDs", *columns],
            [
                [
                    row["name"],
                    row["semantic_ids"],
                    round(row["parameters"]),
                    round(row["iterations"]),
                    f"{row['teraflops']:.2f}",
                    round(row["training_seconds"]),
                    round(row["users_per_second"]),
                ]
                for row in models
            ],
        ),
        paragraph(
            "Means over seeds. Times are CPU seconds, with one thread per run. Training includes the validations; "
            "decoding is the beam search of the test."
        ),
    ]


def _codes(results: dict[str, Any]) -> list[str]:
    return [
        heading("The semantic IDs"),
        table(
            ["kind", "seed", "codes per level", "colliding items"],
            [
                [
                    ids["kind"],
                    ids["seed"],
                    " ".join(map(str, ids["level_sizes"])),
                    f"{ids['collision_rate']:.1%}",
                ]
                for ids in results["semantic_ids"]
            ],
        ),
        paragraph(_describe_embeddings(results["embeddings"])),
    ]


def _describe_embeddings(settings: dict[str, Any]) -> str:
    content = (
        f"{settings['model']} embeddings of the items' texts"
        if settings["model"]
        else "the embeddings that came with the data"
    )
    collaborative = settings["collaborative"]
    appended = (
        f", with {collaborative['width']} co-occurrence dimensions computed from the training interactions"
        if collaborative
        else ""
    )
    return f"The RQ-VAE reads {content}{appended}. The last level is the deduplication code."


def _settings(settings: dict[str, dict[str, Any]]) -> list[str]:
    return [
        heading("Settings"),
        table(
            ["part", "setting", "value"],
            [
                [part, name, _value(value)]
                for part, values in settings.items()
                for name, value in values.items()
            ],
        ),
    ]


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
