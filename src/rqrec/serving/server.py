"""The server process: listening, signals, graceful shutdown."""

import asyncio
import gc
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI

from rqrec.serving.app import create_app
from rqrec.serving.config import ServiceConfig
from rqrec.serving.connections import Connection
from rqrec.serving.errors import ApiError
from rqrec.serving.listener import KEEP_ALIVE, listen
from rqrec.serving.logs import LOG, log_to_stderr
from rqrec.serving.metrics import Metrics
from rqrec.serving.model_registry import ModelRegistry

# Seconds. A beam search runs over a thousand short operations, each of which reacquires the GIL: at Python's
# default of 0.005 each of them may wait that long for a request that is being parsed.
SWITCH_INTERVAL = 0.00003
ANY_ADDRESS = ("0.0.0.0", "::", "")


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
        loop="asyncio",  # uvloop accepts one connection per turn of the loop: new ones starve while others are busy
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


def port_is_free(config: ServiceConfig) -> bool:
    """Whether the service can listen on its port now."""
    try:
        listen(config).close()
    except (OSError, UnicodeError):
        return False
    return True


def page_url(host: str, port: int) -> str:
    """The address of the page for a browser on this machine."""
    if host in ANY_ADDRESS:
        host = "localhost"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def open_page(url: str) -> None:
    """Open a browser, in the background, where there is a screen."""
    has_screen = (
        sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if has_screen:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def serve(
    sources: Mapping[str, Path], config: ServiceConfig, listening: Callable[[str], None] | None = None
) -> None:
    """Serve the models of `sources` (name -> folder; the first is the default) until SIGTERM or SIGINT.

    `listening` is called with the address of the page as soon as it can be opened. Raises ValueError or OSError if an
    artefact is invalid or the port is in use.
    """
    log_to_stderr(config.log_level, config.log_format)
    torch.set_num_threads(config.threads)
    sys.setswitchinterval(SWITCH_INTERVAL)
    metrics = Metrics()
    registry = ModelRegistry(sources, config, metrics)
    gc.collect()
    gc.freeze()  # the models live as long as the process: no collection has to scan them while requests wait
    try:
        listener = listen(config)
    except (OSError, UnicodeError) as error:  # no host name has such letters
        registry.close()
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"Cannot listen on {config.host}:{config.port} ({reason}): choose another host or port."
        ) from error
    app = create_app(registry, config, metrics)
    with listener:
        port = listener.getsockname()[1]
        fields = {"host": config.host, "port": port, **registry.describe()}
        fields["text"] = f"Open {page_url(config.host, port)} in a browser. Stop with Ctrl-C."
        LOG.info("listening", extra={"fields": fields})
        if listening is not None:
            listening(page_url(config.host, port))
        GracefulServer(server_config(app, config), registry).run(sockets=[listener])
