"""`rqrec serve`."""

from dataclasses import replace
from typing import Annotated

import typer

from rqrec.cli.app import command
from rqrec.serving.config import ServiceConfig
from rqrec.serving.model_registry import named
from rqrec.serving.server import serve as run


@command("rqrec serve --artifact out/demo --port 8000", section="serve")
def serve(
    artifact: Annotated[
        list[str],
        typer.Option(help="Folder of a retrieval model or of its run, or NAME=FOLDER; repeatable."),
    ],
    config: ServiceConfig,
    token: Annotated[
        str, typer.Option(envvar="RQREC_TOKEN", help="Bearer tokens, comma-separated; requests need one.")
    ] = "",
    admin_token: Annotated[
        str, typer.Option(envvar="RQREC_ADMIN_TOKEN", help="Token of POST /admin/reload.")
    ] = "",
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Web origin whose pages may call the service; repeatable.")
    ] = None,
) -> None:
    """Serve models over HTTP until SIGTERM; SIGHUP reloads the artefacts."""
    tokens = tuple(filter(None, (one.strip() for one in token.split(","))))
    access = {
        "tokens": tokens,
        "admin_token": admin_token.strip(),
        "allow_origins": tuple(allow_origin or ()),
    }
    run(named(artifact), replace(config, **access))
