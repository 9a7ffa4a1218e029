"""`rqrec evaluate`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rqrec.cli.command import AsJson, Force, command, emit
from rqrec.core.artifact import read_json
from rqrec.evaluation.evaluation_report import SEEN_METRICS, unreachable_targets, with_interval
from rqrec.stages.evaluate_config import EvaluateConfig


@command("rqrec evaluate --artifact out/demo --split test", section="evaluate")
def evaluate(
    config: EvaluateConfig,
    artifact: Annotated[
        Path | None, typer.Option(help="Folder of a retrieval or SASRec model, or its run folder.")
    ] = None,
    baseline: Annotated[
        Literal["popularity", "item_knn", "content_knn", "hybrid_knn"] | None,
        typer.Option(help="A baseline to evaluate instead of a model (--artifact)."),
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="By default the one that the model was trained on, if it lies near.")
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="Item embeddings, required by content_knn and hybrid_knn.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Another evaluation of the same examples, to test against.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the evaluation.")] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Measure item-level metrics of a model or a baseline, with intervals, breakdowns and a report."""
    from rqrec.evaluation.results_io import EVALUATION_FILE
    from rqrec.stages.evaluate import evaluate as run
    from rqrec.stages.evaluate import evaluate_baseline

    if (artifact is None) == (baseline is None):
        raise typer.BadParameter("Give either --artifact or --baseline.")
    if artifact is not None:
        if embeddings is not None:
            raise typer.BadParameter("--embeddings is only for --baseline content_knn or hybrid_knn.")
        folder = run(config, artifact, dataset, compare=compare, out=out, force=force)
    elif dataset is None:
        raise typer.BadParameter("--baseline needs --dataset.")
    elif config.beam_width is not None:
        raise typer.BadParameter("--beam-width is only for --artifact: a baseline scores every item.")
    elif config.experts:
        raise typer.BadParameter("--experts is only for --artifact: a baseline is a single expert.")
    elif embeddings is not None and baseline in ("popularity", "item_knn"):
        raise typer.BadParameter("--embeddings is only for --baseline content_knn or hybrid_knn.")
    else:
        folder = evaluate_baseline(
            config, str(baseline), dataset, embeddings, compare=compare, out=out, force=force
        )
    result = {"artifact": str(folder), **read_json(folder / EVALUATION_FILE)}
    emit(result, as_json, _text(result))


def _text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['recommender']}, {result['split']}, {result['protocol']}, {result['cases']} examples",
        result["selected"],
    ]
    for choice, row in result["seen_items"].items():
        lines.append(f"seen items {choice}:")
        for name in SEEN_METRICS:
            lines.append(f"  {name:<10} {with_interval(row['metrics'][name], row['intervals'][name])}")
    lines += unreachable_targets(result)
    for row in result["groups"]["target"]:
        if row["cases"]:
            value = with_interval(row["metrics"]["recall@10"], row["intervals"]["recall@10"])
            lines.append(f"recall@10  {value}, {row['group']} ({row['cases']} examples)")
    if "comparison" in result:
        for name, row in result["comparison"]["metrics"].items():
            against = f"{name} against {result['comparison']['with']}"
            lines.append(f"{against}: {row['mean']:+.4f} (p = {row['p_value']:.4f})")
    return "\n".join([*lines, f"Report: {result['artifact']}/report.html"])
