"""The runs of a comparison put together: means and deviations over seeds."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")


def summary_of(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each architecture and kind of IDs, and for each baseline, in the order of the runs.

    `test` and `validation` hold the mean and the deviation over seeds of each metric (the sample's, None with
    one seed); parameters, iterations, compute, seconds and users a second are means.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(
            (run.get("architecture") or run["baseline"], run.get("semantic_ids", "")), []
        ).append(run)
    return [_row(name, ids, members) for (name, ids), members in groups.items()]


def _row(name: str, ids: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    counted = ("parameters", "iterations", "teraflops", "training_seconds", "users_per_second")
    return {
        "name": name,
        "semantic_ids": ids,
        "seeds": len(runs),
        **{
            split: {metric: _spread([run[split][metric] for run in runs]) for metric in METRICS}
            for split in ("validation", "test")
        },
        **{key: mean(run[key] for run in runs) for key in counted if key in runs[0]},
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": mean(values), "deviation": stdev(values) if len(values) > 1 else None}


def shown(spread: dict[str, float | None]) -> str:
    """Such as "0.0412 ± 0.0007"."""
    deviation = spread["deviation"]
    return f"{spread['mean']:.4f}" + (f" ± {deviation:.4f}" if deviation is not None else "")


def lines_of(summary: Sequence[dict[str, Any]]) -> str:
    """The test metrics as aligned lines."""
    width = max(len(row["name"]) for row in summary)
    lines = [f"{'test':<{width}}  {'IDs':<9}  {'recall@10':<17}  ndcg@10"]
    lines += [
        f"{row['name']:<{width}}  {row['semantic_ids']:<9}  {shown(row['test']['recall@10']):<17}  "
        f"{shown(row['test']['ndcg@10'])}"
        for row in summary
    ]
    return "\n".join(lines)
