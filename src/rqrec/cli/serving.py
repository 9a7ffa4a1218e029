"""The command that serves models over HTTP."""

from typing import Annotated, cast

import typer

from rqrec.cli.app import app, sentence


@app.command(epilog="Example: rqrec serve --artifact out/demo --port 8000")
@sentence
def serve(
    artifact: Annotated[
        list[str],
        typer.Option(help="Folder of a retrieval model or of its run, or NAME=FOLDER; again for more."),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    beam_width: Annotated[int, typer.Option(min=1, help="Prefixes that the search keeps.")] = 50,
    max_batch: Annotated[int, typer.Option(min=1, help="Histories answered at once.")] = 32,
    max_wait_ms: Annotated[float, typer.Option(min=0, help="A request's wait for company.")] = 3.0,
    max_queue: Annotated[int, typer.Option(min=1, help="Histories that may wait.")] = 256,
    timeout: Annotated[float, typer.Option(help="Time limit of a request, in seconds.")] = 10.0,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request's body.")] = 1 << 20,
    max_histories: Annotated[int, typer.Option(min=1, help="Histories of a request.")] = 64,
    max_history: Annotated[int, typer.Option(min=1, help="Items of a history.")] = 1000,
    rate: Annotated[float, typer.Option(min=0, help="Requests per second of a key; 0: no limit.")] = 0.0,
    burst: Annotated[int, typer.Option(min=1, help="Requests of a key that may come at once.")] = 20,
    token: Annotated[
        str, typer.Option(envvar="RQREC_TOKEN", help="Bearer tokens, separated by commas; requests need one.")
    ] = "",
    admin_token: Annotated[
        str, typer.Option(envvar="RQREC_ADMIN_TOKEN", help="Token of POST /admin/reload.")
    ] = "",
    allow_origin: Annotated[
        list[str], typer.Option(help="Web origin whose pages may call; again for more.")
    ] = [],  # noqa: B006
    trusted_proxies: Annotated[
        str, typer.Option(help="Addresses whose X-Forwarded-For is believed, separated by commas.")
    ] = "",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve models over HTTP until SIGTERM; SIGHUP reads the artefacts again."""
    from rqrec.serving.config import LogLevel, ServiceConfig
    from rqrec.serving.model_registry import parse_sources
    from rqrec.serving.server import serve as run

    if log_level not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter("--log-level is debug, info, warning or error.")
    config = ServiceConfig(
        host=host,
        port=port,
        threads=threads,
        beam_width=beam_width,
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        max_queue=max_queue,
        timeout=timeout,
        max_body=max_body,
        max_histories=max_histories,
        max_history=max_history,
        rate=rate,
        burst=burst,
        tokens=tuple(filter(None, (one.strip() for one in token.split(",")))),
        admin_token=admin_token.strip(),
        allow_origins=tuple(allow_origin),
        trusted_proxies=tuple(filter(None, (one.strip() for one in trusted_proxies.split(",")))),
        log_level=cast(LogLevel, log_level),
    )
    run(parse_sources(artifact), config)
