"""The server process: a reload loses no request, and a shutdown finishes running requests."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from rqrec.cli import app
from rqrec.core.artifact import create, read_manifest
from rqrec.data.catalog import Catalog
from rqrec.retrieval.artifact import read_retrieval, write_retrieval
from rqrec.serving import server
from rqrec.serving.config import ServiceConfig

ADMIN = {"Authorization": "Bearer boss"}


class Process:
    """`rqrec serve` on a free port, with a thread that reads its log."""

    def __init__(self, run: Path, *options: str) -> None:
        command = [
            sys.executable,
            "-m",
            "rqrec",
            "serve",
            "--artifact",
            str(run),
            "--port",
            "0",
            *options,
        ]
        environment = {**os.environ, "RQREC_ADMIN_TOKEN": "boss"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.log: list[dict[str, Any]] = []
        self.port = 0
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_listening(self) -> None:
        assert self._listening.wait(240)
        assert self.port, self.log

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(json.loads(line))
            if self.log[-1]["message"] == "listening":
                self.port = self.log[-1]["port"]
                self._listening.set()
        self._listening.set()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """The status and JSON body of one request."""
        return ask(self.connect(), method, path, body, **headers)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(120)
        self._reader.join(60)
        return status


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any]:
    content = None if body is None else json.dumps(body)
    connection.request(method, path, content, {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


@pytest.fixture(scope="module")
def run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny run that tests may modify."""
    folder = tmp_path_factory.mktemp("served") / "run"
    shutil.copytree(tiny_run, folder)
    return folder


@pytest.fixture(scope="module")
def served(run: Path) -> Iterator[Process]:
    process = Process(run, "--max-queue", "1000", "--timeout", "120")
    try:
        process.wait_until_listening()
        yield process
    finally:
        process.process.kill()
        process.process.wait()


class Load:
    """Clients that send requests for the duration of the block, each on its own connection."""

    def __init__(self, served: Process, clients: int = 4) -> None:
        self.statuses: list[int] = []
        self.titles: set[str] = set()
        self.failures: list[Exception] = []
        self._served, self._over = served, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        connection = self._served.connect()
        try:
            while not self._over.is_set():
                status, body = ask(connection, "POST", "/v1/recommendations", {"history": ["item 8"], "k": 2})
                self.statuses.append(status)
                self.titles.update(item["title"] for item in body["recommendations"][0]["items"])
        except Exception as error:
            self.failures.append(error)

    def wait_for_more(self) -> None:
        """Wait until 20 more requests have been answered."""
        enough = len(self.statuses) + 20
        while len(self.statuses) < enough and not self.failures:
            time.sleep(0.005)


def replace_titles(run: Path, prefix: str) -> None:
    """Replace the artefact by one of the same model with other titles."""
    checkpoint = read_retrieval(run)
    titled = checkpoint.catalog.items.with_columns(title=pl.lit(prefix) + pl.col("item_id"))
    inputs = read_manifest(run / "retrieval").inputs
    with create(run / "retrieval", "retrieval", settings={}, inputs=inputs) as target:
        write_retrieval(target, checkpoint._replace(catalog=Catalog(titled)))


def test_a_reload_under_load_loses_no_request(served: Process, run: Path) -> None:
    with Load(served) as load:
        load.wait_for_more()
        replace_titles(run, "Second ")
        status, body = served.ask("POST", "/admin/reload", **ADMIN)
        assert (status, body["models"][0]["name"]) == (200, "run")
        load.titles.clear()
        load.wait_for_more()
        assert "Second item 9" in load.titles
        replace_titles(run, "Third ")
        served.process.send_signal(signal.SIGHUP)
        while "Third item 9" not in load.titles and not load.failures:
            load.wait_for_more()
    assert load.failures == []
    assert set(load.statuses) == {200}


def test_a_corrupt_artefact_is_refused_and_the_old_model_stays(served: Process, run: Path) -> None:
    weights = run / "retrieval" / "model.safetensors"
    valid = weights.read_bytes()
    with Load(served, 2) as load:
        for corrupt in (valid[: len(valid) // 2], b""):
            weights.write_bytes(corrupt)
            status, body = served.ask("POST", "/admin/reload", **ADMIN)
            assert (status, body["error"]["code"]) == (409, "reload_refused")
            assert "model.safetensors" in body["error"]["message"]
            load.wait_for_more()
        weights.unlink()
        assert served.ask("POST", "/admin/reload", **ADMIN)[0] == 409
        assert served.ask("GET", "/readyz") == (200, {"status": "ok"})
    assert load.failures == []
    assert set(load.statuses) == {200}
    weights.write_bytes(valid)
    assert served.ask("POST", "/admin/reload", **ADMIN)[0] == 200


@pytest.mark.slow
def test_an_idle_connection_is_kept_open(served: Process) -> None:
    connection = served.connect()
    assert ask(connection, "GET", "/v1/models")[0] == 200
    open_socket = connection.sock
    time.sleep(6)  # uvicorn's default is to close after 5
    assert ask(connection, "GET", "/v1/models")[0] == 200
    assert connection.sock is open_socket


def test_the_curl_examples_of_the_documentation_work(served: Process) -> None:
    if shutil.which("curl") is None:
        pytest.skip("There is no curl.")
    text = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text().replace("\\\n", "")
    commands = [line for line in text.splitlines() if line.startswith("curl ")]
    assert len(commands) > 10
    for command in commands:
        local = command.replace("localhost:8000", f"127.0.0.1:{served.port}").replace("b0ss", "boss")
        done = subprocess.run(local, shell=True, capture_output=True, text=True, check=True)
        if "/metrics" in command:
            assert "rqrec_requests_total" in done.stdout
            continue
        error = json.loads(done.stdout).get("error", {"code": "none"})
        # The examples use ids of the demo's catalogue, which the tiny run does not have.
        assert error["code"] in ("none", "unknown_item", "unknown_prefix"), (command, error)


def test_shutdown_answers_all_running_requests(served: Process) -> None:
    request = {"histories": [["item 8"]] * 64, "k": 20, "explain": True}
    responses: list[tuple[int, int]] = []

    def heavy(connection: http.client.HTTPConnection) -> None:
        status, body = ask(connection, "POST", "/v1/recommendations", request)
        responses.append((status, len(body["recommendations"])))

    connections = [served.connect() for _ in range(6)]
    for connection in connections:
        assert ask(connection, "GET", "/healthz")[0] == 200  # the server has accepted it
    threads = [threading.Thread(target=heavy, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    while "rqrec_waiting_histories" not in (text := metrics_text(served)) or queue_length(text) < 64 * 4:
        assert len(responses) < 2, "the model is too fast for this test"
    assert served.stop() == 0
    for thread in threads:
        thread.join()
    assert responses == [(200, 64)] * 6
    assert not [line for line in served.log if line["level"] == "error" and "reload" not in line["message"]]


def metrics_text(served: Process) -> str:
    connection = served.connect()
    connection.request("GET", "/metrics")
    return connection.getresponse().read().decode()


def queue_length(text: str) -> float:
    (line,) = (line for line in text.splitlines() if line.startswith("rqrec_waiting_histories{"))
    return float(line.split()[-1])


def test_a_used_port_and_invalid_arguments_are_refused(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        server, "log_to_stderr", lambda level, log_format: None
    )  # keep the log handlers of pytest
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(app, ["serve", "--artifact", str(tiny_run), "--port", port])
    assert (done.exit_code, "choose another host or port" in done.stderr) == (1, True)
    for options, status in (
        (["--artifact", str(tmp_path)], 1),
        (["--artifact", str(tiny_run), "--artifact", f"run={tiny_run}"], 1),
        (["--artifact", str(tiny_run), "--log-level", "loud"], 2),
        ([], 2),
    ):
        done = CliRunner().invoke(app, ["serve", *options])
        assert done.exit_code == status, done.stderr
        assert isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"host": " "}, "host is ' ', but must be an address"),
        ({"host": ""}, "host is '', but must be an address"),  # the system would listen on all of them
        ({"threads": 100_000}, "threads is 100000, but must be at least 1 and at most 1024"),
        ({"max_queue": 10**20}, "and not beyond 9223372036854775807"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServiceConfig(**setting)
