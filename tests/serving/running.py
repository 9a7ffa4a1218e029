"""Runs the service in a thread of the test process."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from rqrec.serving.app import create_app
from rqrec.serving.config import ServiceConfig
from rqrec.serving.metrics import Metrics
from rqrec.serving.model_registry import ModelRegistry
from rqrec.serving.server import server_config

LOCAL = "http://localhost"  # the address of test clients: the service answers to no other name


@contextmanager
def running(runs: Mapping[str, Path], **options: Any) -> Iterator[str]:
    """The address of a service over these runs; the first is the default model."""
    config, metrics = ServiceConfig(**{"timeout": 60.0, **options}), Metrics()
    app = create_app(ModelRegistry(runs, config, metrics), config, metrics)
    server = uvicorn.Server(server_config(app, config))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
