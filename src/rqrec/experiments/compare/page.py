"""The page that tells a comparison: tables, a figure, the settings, and sentences worked out from the figures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rqrec.evaluation.figures import draw_bars
from rqrec.evaluation.report import figure, heading, paragraph, save_report, table
from rqrec.experiments.compare.summary import METRICS, shown

FIGURE = "comparison.png"
JUDGED = "ndcg@10"

WHAT_IDS_ARE = {
    "trained": "Trained IDs are the codes of a trained RQ-VAE.",
    "untrained": "Untrained ones are those of an RQ-VAE as it is before training: its encoder is a random map, "
    "and its codebooks are set by k-means on what that gives.",
    "random": "Random ones are drawn by chance, whatever the item: the model can learn each item by heart, and "
    "nothing from one item for another.",
}


def write_page(folder: Path, results: dict[str, Any], findings: str = "") -> None:
    """Write `report.md`, `report.html` and the figure; the paragraphs of `findings` come last."""
    summary = results["summary"]
    models = [row for row in summary if row["semantic_ids"]]
    blocks = [*_protocol(results, models), *_result(folder, summary, models), *_cost(models)]
    blocks += [*_codes(results), *_settings(results["settings"])]
    if findings.strip():
        blocks += [heading("What it teaches"), *map(paragraph, findings.strip().split("\n\n"))]
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
            f"{dataset['interactions']:,} interactions. Of each user's items the last is the test, the one "
            f"before it the validation, the rest trains. All items that the user has not taken compete, and a hit "
            f"is an item, not a code."
        ),
        paragraph(
            f"Equal parameters: every model has {min(counts):,} to {max(counts):,} trained parameters, code "
            f"embeddings included; its width follows from that number and its depth."
        ),
        paragraph(
            f"Equal compute: every model trains for {sizes['teraflops']:g} teraflop (10^12 floating-point "
            f"operations), the matrix products of all its steps, forward and backward, each counted for its "
            f"own batch; training ends where their sum comes nearest to the budget. Time would measure the machine "
            f"and what else runs on it; the processor's seconds are shown beside."
        ),
        paragraph(
            f"A model is validated {training['validations']} times, on at most {validated:,} users, the same for "
            f"all; the weights with the highest {JUDGED} are tested once, on all users, with a beam of "
            f"{training['beam_width']}. A seed ({', '.join(map(str, seeds))}) stands for everything that is drawn: "
            f"the RQ-VAE or the random codes, and the model. ± is the standard deviation over seeds."
        ),
        paragraph(" ".join(WHAT_IDS_ARE[kind] for kind in kinds)),
    ]


def _result(
    folder: Path, summary: Sequence[dict[str, Any]], models: Sequence[dict[str, Any]]
) -> Iterator[str]:
    kinds = list(dict.fromkeys(row["semantic_ids"] for row in models))
    names = list(dict.fromkeys(row["name"] for row in models))
    of = {(row["name"], row["semantic_ids"]): row["test"][JUDGED]["mean"] for row in models}
    draw_bars(folder / FIGURE, kinds, {name: [of[name, kind] for kind in kinds] for name in names})
    yield heading("Result")
    yield _metrics_table("test", summary)
    yield figure(FIGURE, f"Test {JUDGED} by semantic IDs and architecture, mean over seeds")
    yield paragraph(" ".join([*_between_architectures(models, kinds), *_between_ids(models, names)]))
    yield paragraph("On the validation users, by which the weights were chosen:")
    yield _metrics_table("validation", summary)


def _metrics_table(split: str, summary: Sequence[dict[str, Any]]) -> str:
    return table(
        [split, "semantic IDs", *METRICS],
        [
            [row["name"], row["semantic_ids"] or "none", *(shown(row[split][name]) for name in METRICS)]
            for row in summary
        ],
    )


def _between_architectures(models: Sequence[dict[str, Any]], kinds: Sequence[str]) -> Iterator[str]:
    """For each kind of IDs, which architecture is ahead, and whether by more than seeds differ."""
    for kind in kinds:
        first, *others = _ranked([row for row in models if row["semantic_ids"] == kind])
        if others:
            yield (
                f"With {kind} IDs, {first['name']} has the highest {JUDGED}, {shown(first['test'][JUDGED])}, "
                f"{_ahead(first, others[0])}."
            )


def _between_ids(models: Sequence[dict[str, Any]], names: Sequence[str]) -> Iterator[str]:
    """For each architecture, which kind of IDs is ahead, and of which."""
    for name in names:
        first, *others = _ranked([row for row in models if row["name"] == name])
        if others:
            yield (
                f"For {name}, {first['semantic_ids']} IDs are best: "
                f"{' and '.join(_ahead(first, other, 'semantic_ids') for other in others)}."
            )


def _ranked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -row["test"][JUDGED]["mean"])


def _ahead(first: dict[str, Any], second: dict[str, Any], called: str = "name") -> str:
    high, low = first["test"][JUDGED], second["test"][JUDGED]
    share = f"{high['mean'] / low['mean'] - 1:.0%}" if low["mean"] else "far"
    words = f"{share} above {second[called]} ({shown(low)})"
    if high["deviation"] is None or low["deviation"] is None:
        return f"{words}, with one seed"
    if high["mean"] - low["mean"] <= high["deviation"] + low["deviation"]:
        return f"{words}, no more than seeds differ"
    return words


def _cost(models: Sequence[dict[str, Any]]) -> list[str]:
    columns = ["parameters", "steps", "teraflop", "training, s", "decoded users per s"]
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
            "Means over seeds. Seconds are those of the processor, one thread a run; training includes the "
            "validations, and decoding is the test with its beam search."
        ),
    ]


def _codes(results: dict[str, Any]) -> list[str]:
    return [
        heading("The semantic IDs"),
        table(
            ["kind", "seed", "codes of each level", "items that share their codes"],
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
        paragraph(_embedded(results["embeddings"])),
    ]


def _embedded(settings: dict[str, Any]) -> str:
    content = (
        f"{settings['model']} of the items' texts" if settings["model"] else "vectors that came with the data"
    )
    taken = settings["collaborative"]
    beside = (
        f", with {taken['width']} dimensions of which items training users took together" if taken else ""
    )
    return (
        f"The RQ-VAE reads {content}{beside}. The last level tells items apart that share their other codes."
    )


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
    return f"{value:,}" if isinstance(value, int) else str(value)
