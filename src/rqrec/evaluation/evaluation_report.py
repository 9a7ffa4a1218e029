"""The report of an evaluation, generated from its `evaluation.json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rqrec.evaluation.figures import draw_intervals
from rqrec.evaluation.glossary import glossary
from rqrec.evaluation.metrics import CUTOFFS
from rqrec.evaluation.report import figure, heading, paragraph, save_report, table

PROTOCOLS = {
    "leave_one_out": "the last item of each user is the test target and the one before it the validation "
    "target; the rest is for training",
    "temporal": "two points in time, the same for all users, separate training, validation and test; the "
    "target of a user is the first item of the evaluated period",
}
SEEN_METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
GROUPS = {
    "target": "training interactions of the target",
    "history": "items in the history",
    "popularity": "popularity of the target",
}


def write_evaluation_report(folder: Path, evaluation: dict[str, Any]) -> None:
    """Write `report.md`, `report.html` and their figure into `folder`; `evaluation` as in `evaluation.json`."""
    blocks = [
        *_setup(evaluation),
        *_ranking(folder, evaluation),
        *_groups(evaluation),
        *_exposure(evaluation),
    ]
    blocks += [*_comparison(evaluation), *_id_level(evaluation), *glossary(_words(evaluation))]
    protocol = evaluation["protocol"].replace("_", "-")
    save_report(folder, f"{evaluation['recommender']}: {evaluation['split']}, {protocol}", blocks)


def _words(evaluation: dict[str, Any]) -> list[str]:
    """The words of the report that a glossary explains."""
    words = ["recall@10", "NDCG@10", "MRR", "interval", "seen items", "validation and test"]
    words += ["coverage", "novelty", "Gini coefficient"]
    words += ["p"] if "comparison" in evaluation else []
    return [*words, "semantic ID"] if "id_level" in evaluation else words


def unreachable_targets(evaluation: dict[str, Any]) -> list[str]:
    """A sentence on targets that cannot be hit because they are in their history and seen items are excluded."""
    count = evaluation["targets_in_history"]
    if not (count and evaluation["exclude_seen"]):
        return []
    return [
        f"{count} of the {evaluation['cases']} targets are in their history: while seen items are excluded, they "
        f"cannot be hit. If people take items again, train with train.exclude_seen=False, or use --allow-seen."
    ]


def with_interval(mean: float, interval: Sequence[float]) -> str:
    """A mean with its interval, such as "0.1000 [0.0900, 0.1100]"."""
    return f"{mean:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"


def _setup(evaluation: dict[str, Any]) -> list[str]:
    seen = ", except the items of the user's history," if evaluation["exclude_seen"] else ""
    chosen = _in_words(evaluation["settings"])
    settings = f" Settings: {chosen}." if chosen else ""
    return [
        paragraph(
            f"For {evaluation['metrics']['recall@10']:.1%} of the users, the item that they really took is among the "
            f"first ten recommendations."
        ),
        paragraph(evaluation["selected"]),
        paragraph(
            f"{evaluation['cases']} examples, one per user: {PROTOCOLS[evaluation['protocol']]}. The whole catalogue"
            f"{seen} is ranked, and a hit is the target item, not its semantic ID. In brackets: 95 % bootstrap "
            f"intervals over users (seed {evaluation['seed']}).{settings}"
        ),
        *map(paragraph, unreachable_targets(evaluation)),
    ]


def _in_words(settings: Mapping[str, Any]) -> str:
    """Settings that are set, such as "beam width 50, experts (codes (power 0.63), neighbours (power 3.0))"."""
    words = []
    for name, value in settings.items():
        if value is not None:
            text = f"({_in_words(value)})" if isinstance(value, Mapping) else value
            words.append(f"{name.replace('_', ' ')} {text}")
    return ", ".join(words)


def _ranking(folder: Path, evaluation: dict[str, Any]) -> list[str]:
    metrics, intervals = evaluation["metrics"], evaluation["intervals"]
    labels = {"recall": "recall (hit rate)", "ndcg": "NDCG", "mrr": "MRR"}
    rows = [
        [label, *(with_interval(metrics[f"{name}@{k}"], intervals[f"{name}@{k}"]) for k in CUTOFFS)]
        for name, label in labels.items()
    ]
    names = [f"{name}@{k}" for name in ("recall", "ndcg") for k in CUTOFFS[1:]]
    draw_intervals(folder / "metrics.png", {name: (metrics[name], *intervals[name]) for name in names})
    return [
        heading("Ranking"),
        table(["", *(f"@{k}" for k in CUTOFFS)], rows),
        figure("metrics.png", "Item-level metrics with 95 % intervals"),
        *_seen_items(evaluation),
    ]


def _seen_items(evaluation: dict[str, Any]) -> list[str]:
    if "seen_items" not in evaluation:
        return []
    rows = [
        [
            f"seen items {choice}",
            *(with_interval(row["metrics"][name], row["intervals"][name]) for name in SEEN_METRICS),
        ]
        for choice, row in evaluation["seen_items"].items()
    ]
    return [
        paragraph(
            "The same model with the items of each history excluded from the ranking, and allowed in it. Published "
            "metrics are of the one or of the other kind, which differ much; compare only equal kinds."
        ),
        table(["", *SEEN_METRICS], rows),
    ]


def _groups(evaluation: dict[str, Any]) -> list[str]:
    blocks = [heading("By group of examples")]
    for group, label in GROUPS.items():
        rows = []
        for row in evaluation["groups"][group]:
            cells = [
                with_interval(row["metrics"][name], row["intervals"][name]) if row["cases"] else "no examples"
                for name in ("recall@10", "ndcg@10")
            ]
            rows.append([row["group"], row["cases"], *cells])
        blocks.append(table([label, "examples", "recall@10", "NDCG@10"], rows))
    return blocks


def _exposure(evaluation: dict[str, Any]) -> list[str]:
    exposure = evaluation["exposure"]
    rows = [
        ["coverage: items shown to at least one user", f"{exposure['coverage']:.1%}"],
        ["novelty, bits", f"{exposure['novelty']:.2f}"],
        ["training interactions of a shown item, mean", f"{exposure['popularity']:.1f}"],
        ["the same mean over the training interactions", f"{exposure['train_popularity']:.1f}"],
        ["Gini coefficient of the shown items", f"{exposure['gini']:.3f}"],
        ["Gini coefficient of the training interactions", f"{exposure['train_gini']:.3f}"],
    ]
    return [heading("Exposure of the first ten recommendations"), table(["", "value"], rows)]


def _comparison(evaluation: dict[str, Any]) -> list[str]:
    if "comparison" not in evaluation:
        return []
    comparison = evaluation["comparison"]
    rows = []
    for name, row in comparison["metrics"].items():
        counts = [row[outcome] for outcome in ("better", "worse", "equal")]
        rows.append([name, with_interval(row["mean"], row["interval"]), f"{row['p_value']:.4f}", *counts])
    return [
        heading(f"Comparison with {comparison['with']}"),
        paragraph(
            "Mean difference over the same examples, positive if this recommender is better, with a paired "
            "bootstrap interval over users and the p-value of a two-sided sign-flip permutation test."
        ),
        table(["", "difference", "p", "users better", "worse", "equal"], rows),
    ]


def _id_level(evaluation: dict[str, Any]) -> list[str]:
    if "id_level" not in evaluation:
        return []
    id_level = evaluation["id_level"]
    rows = [
        [
            name,
            with_interval(id_level["metrics"][name], id_level["intervals"][name]),
            with_interval(evaluation["metrics"][name], evaluation["intervals"][name]),
        ]
        for name in id_level["metrics"]
    ]
    return [
        heading("ID-level metrics, for comparison with work that reports them"),
        paragraph(f"ID-level: {id_level['note']}."),
        table(["", "ID-level", "item-level"], rows),
    ]
