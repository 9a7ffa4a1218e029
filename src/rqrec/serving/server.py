"""The process of the service: listening, signals, a graceful stop."""

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

from rqrec.serving.app import create_app
from rqrec.serving.errors import ApiError
from rqrec.serving.logs import LOG, log_json
from rqrec.serving.metrics import Metrics
from rqrec.serving.model_registry import ModelRegistry
from rqrec.serving.settings import Settings

# Seconds. A search is over a thousand short operations, each of which takes the interpreter's lock again: at
# Python's own 0.005 each may wait that long for a request that is being read.
SWITCH_INTERVAL = 0.0002
# Seconds that a connection may wait for its next request. Proxies keep theirs open for a minute; where the service
# hangs up first, a request that is just then on its way is lost.
KEEP_ALIVE = 75


class Server(uvicorn.Server):
    """Ends gracefully, and with status 0, on SIGTERM and SIGINT; reloads the fleet on SIGHUP."""

    def __init__(self, config: uvicorn.Config, fleet: ModelRegistry) -> None:
        super().__init__(config)
        self._fleet = fleet
        self._reload: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals for as long as the server runs."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _hang_up(self) -> None:
        async def reload() -> None:
            try:
                await self._fleet.reload()
            except ApiError as error:
                LOG.error(error.message)

        self._reload = asyncio.get_running_loop().create_task(reload())


def serve(
    sources: Mapping[str, Path],
    settings: Settings,
    *,
    host: str,
    port: int,
    threads: int = 1,
    trusted_proxies: str = "",
    log_level: str = "info",
) -> None:
    """Serve models until SIGTERM or SIGINT.

    port: 0 takes a free one, which the log tells. threads: of torch, for each model. trusted_proxies:
    addresses, separated by commas, whose X-Forwarded-For is believed.
    Raises ValueError or OSError where an artefact is broken or the port is taken.
    """
    log_json(log_level)
    torch.set_num_threads(threads)
    sys.setswitchinterval(SWITCH_INTERVAL)
    metrics = Metrics()
    fleet = ModelRegistry(sources, settings, metrics)
    gc.collect()
    gc.freeze()  # what is loaded stays: no collection has to look through it while requests wait
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        fleet.close()
        raise ValueError(
            f"{host}:{port} cannot be listened on ({error.strerror}): choose another --host or --port."
        ) from error
    config = uvicorn.Config(
        create_app(fleet, settings, metrics),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies or None,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(settings.timeout) + 1,
    )
    with listening:
        facts = {"host": host, "port": listening.getsockname()[1], **fleet.facts()}
        LOG.info("listening", extra={"facts": facts})
        Server(config, fleet).run(sockets=[listening])
