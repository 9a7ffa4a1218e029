"""Results of the runs aggregated over seeds: means and standard deviations."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")


def summary_of(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per architecture and kind of IDs, and per baseline, in the order of the runs.

    `test` and `validation` hold each metric's mean and sample standard deviation over seeds (None with one
    seed); the parameters, iterations, teraflops, training seconds and users per second are means.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(
            (run.get("architecture") or run["baseline"], run.get("semantic_ids", "")), []
        ).append(run)
    return [_row(name, ids, members) for (name, ids), members in groups.items()]


def _row(name: str, ids: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    averaged = ("parameters", "iterations", "teraflops", "training_seconds", "users_per_second")
    return {
        "name": name,
        "semantic_ids": ids,
        "seeds": len(runs),
        **{
            split: {metric: _spread([run[split][metric] for run in runs]) for metric in METRICS}
            for split in ("validation", "test")
        },
        **{key: mean(run[key] for run in runs) for key in averaged if key in runs[0]},
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": mean(values), "deviation": stdev(values) if len(values) > 1 else None}


def format_spread(spread: dict[str, float | None]) -> str:
    """The mean and the deviation, such as "0.0412 ± 0.0007"."""
    deviation = spread["deviation"]
    return f"{spread['mean']:.4f}" + (f" ± {deviation:.4f}" if deviation is not None else "")


def format_summary(summary: Sequence[dict[str, Any]]) -> str:
    """The test metrics as a table of aligned text."""
    width = max(len(row["name"]) for row in summary)
    lines = [f"{'test':<{width}}  {'IDs':<9}  {'recall@10':<17}  ndcg@10"]
    lines += [
        f"{row['name']:<{width}}  {row['semantic_ids']:<9}  {format_spread(row['test']['recall@10']):<17}  "
        f"{format_spread(row['test']['ndcg@10'])}"
        for row in summary
    ]
    return "\n".join(lines)
