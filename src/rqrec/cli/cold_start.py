"""`rqrec hold-out-items` and `rqrec evaluate-cold`."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.command import AsJson, Force, command, emit, emit_artifact
from rqrec.core.artifact import read_json
from rqrec.evaluation.evaluation_report import with_interval
from rqrec.experiments.cold_start_config import EvaluateColdConfig, HoldOutConfig


@command("rqrec hold-out-items --dataset D --embeddings E --out out/cold", section="hold_out_items")
def hold_out_items(
    dataset: Annotated[Path, typer.Option(help="Folder of a dataset, or its run folder.")],
    embeddings: Annotated[Path, typer.Option(help="Content embeddings, without collaborative vectors.")],
    out: Annotated[Path, typer.Option(help="Folder of the artefact.")],
    config: HoldOutConfig,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Hold items out of a dataset, to train a model without them."""
    from rqrec.experiments.cold_start import WARM
    from rqrec.experiments.cold_start import hold_out_items as hold_out

    folder = hold_out(config, dataset, embeddings, out, force=force)
    emit_artifact(
        folder, as_json, f'{{held_out}} items held out; train with train.dataset_folder="{out / WARM}"'
    )


@command(
    "rqrec evaluate-cold out/cold --dataset D --embeddings E --artifact out/cold/decoder",
    section="evaluate_cold",
)
def evaluate_cold(
    held_out: Annotated[Path, typer.Argument(help="Folder that hold-out-items wrote.")],
    dataset: Annotated[Path, typer.Option(help="The complete dataset.")],
    embeddings: Annotated[Path, typer.Option(help="Embeddings of all of its items.")],
    artifact: Annotated[
        Path,
        typer.Option(
            "--artifact", "--run", help="Run that was trained on the remaining items, or a joined model."
        ),
    ],
    config: EvaluateColdConfig,
    out: Annotated[Path | None, typer.Option(help="Folder of the evaluation.")] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Add held-out (cold) items to a model, and measure how well they and the others are recommended."""
    from rqrec.experiments.cold_start import COLD_FILE
    from rqrec.experiments.cold_start import evaluate_cold as measure

    folder = measure(config, held_out, dataset, embeddings, artifact, out=out, force=force)
    result = {"artifact": str(folder), **read_json(folder / COLD_FILE)}
    lines = [
        f"{name:<28} {kind}: recall@10 "
        f"{with_interval(row[kind]['metrics']['recall@10'], row[kind]['intervals']['recall@10'])}"
        for name, row in result["recommenders"].items()
        for kind in ("cold", "warm")
    ]
    emit(result, as_json, "\n".join([*lines, f"Report: {folder}/report.html"]))
