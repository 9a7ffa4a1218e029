"""`rqrec quickstart`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from rqrec.cli.command import AsJson, CustomVectors, command, emit
from rqrec.cli.next_steps import say_next_after
from rqrec.data.sources.custom import CustomFiles
from rqrec.experiments.quickstart_config import QuickstartConfig


@command("rqrec quickstart ratings.csv movies.csv --minutes 8", section="quickstart")
def quickstart(
    log: Annotated[
        Path,
        typer.Argument(help="Who took what, and when: .csv, .parquet, .tsv, .jsonl or .json, also with .gz."),
    ],
    config: QuickstartConfig,
    items: Annotated[
        Path | None, typer.Argument(help="The items with titles and other fields, a file of the same types.")
    ] = None,
    embeddings: CustomVectors = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of everything that is made; by default out/NAME-OF-THE-LOG.")
    ] = None,
    page: Annotated[bool, typer.Option("--serve/--no-serve", help="Serve the page at the end.")] = True,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="TCP port of the page; another one if it is in use.")
    ] = 8000,
    as_json: AsJson = False,
) -> None:
    """Go from two files to a page with recommendations: prepare, embed, tokenize, train, evaluate, serve."""
    from rqrec.experiments.quickstart import quickstart as run

    if items is None and embeddings is None:
        raise typer.BadParameter("Give a file of items after the log, or their vectors (--embeddings).")
    folder = out or Path("out") / log.name.split(".")[0]
    made = run(config, CustomFiles(log, items, embeddings), folder)
    emit({"model": str(made.model), **made.facts}, as_json, _text(made.model, made.facts))
    if not as_json:
        say_next_after(made.model)
    if page and not as_json:
        _serve(folder, port, browser=browser)


def _text(model: Path, facts: dict[str, Any]) -> str:
    """What was learned from, and how good the result is, in plain words."""
    share, popular = facts["model"]["recall@10"], facts["popularity"]["recall@10"]
    return (
        f"\n{facts['users']:,} users, {facts['items']:,} items, {facts['interactions']:,} interactions.\n"
        f"For {share:.1%} of the users, the item that they really took last is among the first ten recommendations; "
        f"for {popular:.1%} if everybody is recommended the most popular items.\n\n"
        f"Model:  {model}\nReport: {facts['report']}"
    )


def _serve(folder: Path, port: int, *, browser: bool) -> None:
    from rqrec.serving.config import ServiceConfig
    from rqrec.serving.server import open_page, port_is_free, serve

    config = ServiceConfig(port=port, log_format="text")
    if not port_is_free(config):
        config = replace(config, port=0)
    print()
    serve({folder.absolute().name: folder}, config, open_page if browser else None)
