"""Commands that measure."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rqrec.cli.app import AsJson, app, emit, sentence


@app.command(epilog="Example: rqrec evaluate --artifact out/demo --split test")
@sentence
def evaluate(
    artifact: Annotated[
        Path | None, typer.Option(help="Folder of a retrieval or SASRec model, or of its run.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Instead of a model: popularity, item_knn, content_knn or hybrid_knn.")
    ] = None,
    dataset: Annotated[Path | None, typer.Option(help="By default the one in the model's run.")] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="Of the items; content_knn and hybrid_knn need them.")
    ] = None,
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    protocol: Annotated[
        str | None,
        typer.Option(help="leave_one_out or temporal; by default the one that the model was trained with."),
    ] = None,
    beam_width: Annotated[int | None, typer.Option(min=1, help="Of a retrieval model; 50 if unset.")] = None,
    without_memory: Annotated[
        bool, typer.Option("--without-memory", help="Leave a model's memory of neighbours out.")
    ] = False,
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="Items of the history may return.")
    ] = False,
    compare: Annotated[
        Path | None, typer.Option(help="Another evaluation of the same cases, to test against.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the evaluation.")] = None,
    seed: Annotated[int, typer.Option(help="Of the intervals and tests.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Item-level figures with intervals, breakdowns and a report, of a model or a baseline."""
    from rqrec.stages.evaluate import evaluate_artifact, evaluate_baseline

    common: dict[str, Any] = {
        "split": split,
        "protocol": protocol,
        "exclude_seen": not allow_seen,
        "compare": compare,
        "out": out,
        "seed": seed,
    }
    if (artifact is None) == (baseline is None):
        raise typer.BadParameter("Give either --artifact or --baseline.")
    if artifact is not None:
        if embeddings is not None:
            raise typer.BadParameter("--embeddings goes with --baseline content_knn or hybrid_knn.")
        facts = evaluate_artifact(
            artifact, dataset, beam_width=beam_width, memory=not without_memory, **common
        )
    elif dataset is None:
        raise typer.BadParameter("--baseline needs --dataset.")
    elif beam_width is not None:
        raise typer.BadParameter("A baseline scores every item: it has no beam.")
    elif without_memory:
        raise typer.BadParameter("--without-memory goes with --artifact.")
    else:
        facts = evaluate_baseline(str(baseline), dataset, embeddings, **common)
    emit(facts, as_json, _words(facts))


def _words(facts: dict[str, Any]) -> str:
    from rqrec.evaluation.evaluation_report import with_interval

    lines = [
        f"{facts['recommender']}, {facts['split']}, {facts['protocol']}, {facts['cases']} cases",
        facts["selected"],
    ]
    for name in ("recall@5", "ndcg@5", "recall@10", "ndcg@10"):
        lines.append(f"{name:<10} {with_interval(facts['metrics'][name], facts['intervals'][name])}")
    for row in facts["groups"]["target"]:
        if row["cases"]:
            value = with_interval(row["metrics"]["recall@10"], row["intervals"]["recall@10"])
            lines.append(f"recall@10  {value}, {row['group']} ({row['cases']} cases)")
    if "comparison" in facts:
        for name, row in facts["comparison"]["metrics"].items():
            against = f"{name} against {facts['comparison']['with']}"
            lines.append(f"{against}: {row['mean']:+.4f} (p = {row['p_value']:.4f})")
    return "\n".join([*lines, f"Report: {facts['artifact']}/report.html"])


@app.command(
    "hold-out-items", epilog="Example: rqrec hold-out-items --dataset D --embeddings E --out out/cold"
)
@sentence
def hold_out_items(
    dataset: Annotated[Path, typer.Option(help="Folder of a dataset, or of its run.")],
    embeddings: Annotated[Path, typer.Option(help="Of the items' content alone.")],
    out: Annotated[Path, typer.Option(help="Folder of the artefact.")],
    share: Annotated[float, typer.Option(help="Of all items that were ever taken.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Of the choice.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Take items out of a dataset, so that a model can be trained that does not know them."""
    from rqrec.experiments.cold_start import WARM
    from rqrec.experiments.cold_start import hold_out_items as hold_out

    facts = hold_out(dataset, embeddings, out, share=share, seed=seed)
    words = f'{facts["held_out"]} items held out; train with train.dataset_folder="{out / WARM}".'
    emit({"artifact": str(out), **facts}, as_json, words)


@app.command(
    "evaluate-cold",
    epilog="Example: rqrec evaluate-cold out/cold --dataset D --embeddings E --run out/cold/decoder "
    "--tokenizer out/cold/rqvae",
)
@sentence
def evaluate_cold(
    held_out: Annotated[Path, typer.Argument(help="What hold-out-items wrote.")],
    dataset: Annotated[Path, typer.Option(help="The whole dataset.")],
    embeddings: Annotated[Path, typer.Option(help="Of all of its items.")],
    run: Annotated[Path, typer.Option(help="Of training on the items that were left.")],
    tokenizer: Annotated[str, typer.Option(help="The tokenizer of that run.")],
    beam_width: Annotated[int, typer.Option(min=1, help="Of the retrieval model.")] = 50,
    new_share: Annotated[float, typer.Option(help="Of the model's probability, for new items.")] = 0.1,
    out: Annotated[Path | None, typer.Option(help="Folder of the evaluation.")] = None,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    as_json: AsJson = False,
) -> None:
    """How often items that came after training are recommended, beside popularity and content neighbours."""
    from rqrec.evaluation.evaluation_report import with_interval
    from rqrec.experiments.cold_start import evaluate_cold as measure

    facts = measure(
        held_out,
        dataset,
        embeddings,
        run,
        tokenizer,
        beam_width=beam_width,
        new_share=new_share,
        out=out,
        seed=seed,
    )
    lines = [
        f"{name:<28} {kind}: recall@10 "
        f"{with_interval(row[kind]['metrics']['recall@10'], row[kind]['intervals']['recall@10'])}"
        for name, row in facts["recommenders"].items()
        for kind in ("cold", "warm")
    ]
    emit(facts, as_json, "\n".join([*lines, f"Report: {facts['artifact']}/report.html"]))
