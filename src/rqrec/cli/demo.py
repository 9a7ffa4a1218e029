"""`rqrec demo`."""

from pathlib import Path
from typing import Annotated

import typer

from rqrec.cli.command import AsJson, DataDir, command, emit, table


@command("rqrec demo --out out/demo")
def demo(
    out: Annotated[Path, typer.Option("--out", "--output", help="Run folder.")] = Path("out/demo"),
    data_dir: DataDir = Path("dataset"),
    seed: Annotated[int, typer.Option(help="Seed of the tokenizer and of the model.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Go from the raw ratings of MovieLens 100K to recommendations and a report, in minutes on a CPU."""
    from rqrec.cli.next_steps import say_next_after
    from rqrec.experiments.demo import run_demo

    result = run_demo(out, data_dir, seed)
    model, popularity = result["model"], result["popularity"]
    text = (
        f"\nTest        recall@10  ndcg@10\n"
        f"model       {model['recall@10']:9.4f}  {model['ndcg@10']:7.4f}\n"
        f"popularity  {popularity['recall@10']:9.4f}  {popularity['ndcg@10']:7.4f}\n\n"
        f"Recommendations for user {result['sample_user']}:\n{table(result['recommendations'])}\n\n"
        f"Model:  {out / 'retrieval'}\nReport: {result['report']}"
    )
    emit(result, as_json, text)
    if not as_json:
        say_next_after(out / "retrieval")
