"""The written report of an evaluation, drawn from the figures in its `evaluation.json`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rqrec.evaluation.figures import draw_intervals
from rqrec.evaluation.metrics import CUTOFFS
from rqrec.evaluation.report import Block, Figure, Heading, Paragraph, Report, Table

PROTOCOLS = {
    "leave_one_out": "each user's last item is the test, the one before it the validation, the rest trains",
    "temporal": "two moments, the same for all users, part training, validation and test; a user's case is "
    "the first item of a stretch",
}
GROUPS = {
    "target": "How often the target occurs in training",
    "history": "Items of the history",
    "popularity": "Popularity of the target",
}


def write_evaluation_report(folder: Path, facts: dict[str, Any]) -> None:
    """Write `report.md`, `report.html` and their figure into `folder`; `facts` as in `evaluation.json`."""
    report = Report(f"{facts['recommender']}: {facts['split']}, {facts['protocol']}")
    report.add(*_protocol(facts), *_ranking(folder, facts), *_groups(facts), *_exposure(facts))
    report.add(*_comparison(facts), *_id_level(facts))
    report.write(folder)


def with_interval(mean: float, interval: Sequence[float]) -> str:
    """A mean and its interval as people write them."""
    return f"{mean:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"


def _protocol(facts: dict[str, Any]) -> list[Block]:
    seen = "that the user has not had before " if facts["exclude_seen"] else ""
    asked = "".join(f" {name.replace('_', ' ')}: {value}." for name, value in facts["settings"].items())
    return [
        Paragraph(facts["selected"]),
        Paragraph(
            f"{facts['cases']} cases, one a user; {PROTOCOLS[facts['protocol']]}. Every item of the catalogue "
            f"{seen}competes, and a hit is an item, not a semantic ID. In brackets: 95 % bootstrap intervals "
            f"over users (seed {facts['seed']}).{asked}"
        ),
    ]


def _ranking(folder: Path, facts: dict[str, Any]) -> list[Block]:
    metrics, intervals = facts["metrics"], facts["intervals"]
    kinds = {"recall": "recall (hit rate)", "ndcg": "NDCG", "mrr": "MRR"}
    rows = [
        [words, *(with_interval(metrics[f"{kind}@{k}"], intervals[f"{kind}@{k}"]) for k in CUTOFFS)]
        for kind, words in kinds.items()
    ]
    names = [f"{kind}@{k}" for kind in ("recall", "ndcg") for k in CUTOFFS[1:]]
    draw_intervals(folder / "metrics.png", {name: (metrics[name], *intervals[name]) for name in names})
    return [
        Heading("Ranking"),
        Table(["", *(f"@{k}" for k in CUTOFFS)], rows),
        Figure("metrics.png", "Item-level metrics with 95 % intervals"),
    ]


def _groups(facts: dict[str, Any]) -> list[Block]:
    blocks: list[Block] = [Heading("For whom it works")]
    for kind, words in GROUPS.items():
        rows = []
        for row in facts["groups"][kind]:
            cells = [
                with_interval(row["metrics"][name], row["intervals"][name]) if row["cases"] else "no cases"
                for name in ("recall@10", "ndcg@10")
            ]
            rows.append([row["group"], row["cases"], *cells])
        blocks.append(Table([words, "cases", "recall@10", "NDCG@10"], rows))
    return blocks


def _exposure(facts: dict[str, Any]) -> list[Block]:
    shown = facts["exposure"]
    rows = [
        ["items shown to somebody (coverage)", f"{shown['coverage']:.1%}"],
        ["novelty, bits", f"{shown['novelty']:.2f}"],
        ["training interactions of a shown item, mean", f"{shown['popularity']:.1f}"],
        ["the same of the training interactions themselves", f"{shown['train_popularity']:.1f}"],
        ["Gini of what is shown", f"{shown['gini']:.3f}"],
        ["Gini of training interactions", f"{shown['train_gini']:.3f}"],
    ]
    return [Heading("What is shown (first ten)"), Table(["", "value"], rows)]


def _comparison(facts: dict[str, Any]) -> list[Block]:
    if "comparison" not in facts:
        return []
    compared = facts["comparison"]
    rows = []
    for name, row in compared["metrics"].items():
        counts = [row[kind] for kind in ("better", "worse", "equal")]
        rows.append([name, with_interval(row["mean"], row["interval"]), f"{row['p_value']:.4f}", *counts])
    return [
        Heading(f"Against {compared['with']}"),
        Paragraph(
            "Mean difference over the same cases, above 0 where this one is better; paired bootstrap over "
            "users, and the p-value of a two-sided sign-flip permutation test."
        ),
        Table(["", "difference", "p", "users better", "worse", "equal"], rows),
    ]


def _id_level(facts: dict[str, Any]) -> list[Block]:
    if "id_level" not in facts:
        return []
    by_id = facts["id_level"]
    rows = [
        [
            name,
            with_interval(by_id["metrics"][name], by_id["intervals"][name]),
            with_interval(facts["metrics"][name], facts["intervals"][name]),
        ]
        for name in by_id["metrics"]
    ]
    return [
        Heading("By semantic ID, to compare with work that counts so"),
        Paragraph(f"ID-level: {by_id['note']}."),
        Table(["", "ID-level", "item-level"], rows),
    ]
