"""`rqrec serve`."""

from typing import Annotated

import typer

from rqrec.cli.command import command
from rqrec.serving.config import ServiceConfig


@command("rqrec serve --artifact out/demo --port 8000", section="serve")
def serve(
    artifact: Annotated[
        list[str],
        typer.Option(help="Folder of a retrieval model or its run folder, or NAME=FOLDER; repeatable."),
    ],
    config: ServiceConfig,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve the page and the HTTP API of models until Ctrl-C or SIGTERM; SIGHUP reads the models again."""
    from rqrec.serving.model_registry import parse_sources
    from rqrec.serving.server import open_page
    from rqrec.serving.server import serve as run

    run(parse_sources(artifact), config, open_page if browser else None)
