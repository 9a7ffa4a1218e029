"""The server process: listening, signals, graceful shutdown."""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI

from rqrec.serving.app import create_app
from rqrec.serving.config import ServiceConfig
from rqrec.serving.connections import Connection
from rqrec.serving.errors import ApiError
from rqrec.serving.logs import LOG, log_json
from rqrec.serving.metrics import Metrics
from rqrec.serving.model_registry import ModelRegistry

# Seconds. A beam search runs over a thousand short operations, each of which reacquires the GIL: at Python's
# default of 0.005 each of them may wait that long for a request that is being parsed.
SWITCH_INTERVAL = 0.0002
# Seconds that an idle connection stays open. Proxies keep theirs open for a minute; if the service closed
# first, a request in flight at that moment would be lost.
KEEP_ALIVE = 75


class GracefulServer(uvicorn.Server):
    """Shuts down gracefully, with exit status 0, on SIGTERM and SIGINT; reloads the models on SIGHUP."""

    def __init__(self, config: uvicorn.Config, registry: ModelRegistry) -> None:
        super().__init__(config)
        self._registry = registry
        self._reload: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the server runs."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _on_hangup(self) -> None:
        async def reload() -> None:
            try:
                await self._registry.reload()
            except ApiError as error:
                LOG.error(error.message)

        self._reload = asyncio.get_running_loop().create_task(reload())


def server_config(app: FastAPI, config: ServiceConfig) -> uvicorn.Config:
    """How uvicorn serves the app."""
    return uvicorn.Config(
        app,
        http=Connection.limited_by(config),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(config.trusted_proxies),
        forwarded_allow_ips=list(config.trusted_proxies) or None,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(config.timeout) + 1,
    )


def serve(sources: Mapping[str, Path], config: ServiceConfig) -> None:
    """Serve the models of `sources` (name -> folder; the first is the default) until SIGTERM or SIGINT.

    Raises ValueError or OSError if an artefact is invalid or the port is in use.
    """
    log_json(config.log_level)
    torch.set_num_threads(config.threads)
    sys.setswitchinterval(SWITCH_INTERVAL)
    metrics = Metrics()
    registry = ModelRegistry(sources, config, metrics)
    gc.collect()
    gc.freeze()  # the models live as long as the process: no collection has to scan them while requests wait
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        listening = socket.create_server((config.host, config.port), family=family, backlog=2048)
    except OSError as error:
        registry.close()
        raise ValueError(
            f"Cannot listen on {config.host}:{config.port} ({error.strerror}): choose another host or port."
        ) from error
    app = create_app(registry, config, metrics)
    with listening:
        fields = {"host": config.host, "port": listening.getsockname()[1], **registry.describe()}
        LOG.info("listening", extra={"fields": fields})
        GracefulServer(server_config(app, config), registry).run(sockets=[listening])
