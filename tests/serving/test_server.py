"""The process of the service: it loses no request when it reloads, and finishes what runs when it stops."""

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

ADMIN = {"Authorization": "Bearer boss"}


class Process:
    """`rqrec serve` on a free port; a thread reads its log."""

    def __init__(self, run: Path, *options: str) -> None:
        command = [
            sys.executable,
            "-m",
            "rqrec.cli",
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

    def wait_until_it_listens(self) -> None:
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
        """Status and JSON of one request."""
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
    """A copy of the tiny run, to be changed."""
    folder = tmp_path_factory.mktemp("served") / "run"
    shutil.copytree(tiny_run, folder)
    return folder


@pytest.fixture(scope="module")
def served(run: Path) -> Iterator[Process]:
    process = Process(run, "--max-queue", "1000", "--timeout", "120")
    try:
        process.wait_until_it_listens()
        yield process
    finally:
        process.process.kill()
        process.process.wait()


class Load:
    """Clients that ask, each on a connection of its own, for as long as the block lasts."""

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
        """Until some more requests have been answered."""
        enough = len(self.statuses) + 20
        while len(self.statuses) < enough and not self.failures:
            time.sleep(0.005)


def rename(run: Path, mark: str) -> None:
    """Put a new artefact in the place of the old: the same model, with other titles."""
    checkpoint = read_retrieval(run)
    titled = checkpoint.catalog.items.with_columns(title=pl.lit(mark) + pl.col("item_id"))
    inputs = read_manifest(run / "retrieval").inputs
    with create(run / "retrieval", "retrieval", settings={}, inputs=inputs) as target:
        write_retrieval(target, checkpoint._replace(catalog=Catalog(titled)))


def test_new_artefacts_take_over_under_load_and_no_request_is_lost(served: Process, run: Path) -> None:
    with Load(served) as load:
        load.wait_for_more()
        rename(run, "Second ")
        status, body = served.ask("POST", "/admin/reload", **ADMIN)
        assert (status, body["models"][0]["name"]) == (200, "run")
        load.titles.clear()
        load.wait_for_more()
        assert "Second item 9" in load.titles
        rename(run, "Third ")
        served.process.send_signal(signal.SIGHUP)
        while "Third item 9" not in load.titles and not load.failures:
            load.wait_for_more()
    assert load.failures == []
    assert set(load.statuses) == {200}


def test_a_broken_artefact_is_refused_and_the_old_one_stays(served: Process, run: Path) -> None:
    weights = run / "retrieval" / "model.safetensors"
    sound = weights.read_bytes()
    with Load(served, 2) as load:
        for broken in (sound[: len(sound) // 2], b""):
            weights.write_bytes(broken)
            status, body = served.ask("POST", "/admin/reload", **ADMIN)
            assert (status, body["error"]["code"]) == (409, "reload_refused")
            assert "model.safetensors" in body["error"]["message"]
            load.wait_for_more()
        weights.unlink()
        assert served.ask("POST", "/admin/reload", **ADMIN)[0] == 409
        assert served.ask("GET", "/readyz") == (200, {"status": "ok"})
    assert load.failures == []
    assert set(load.statuses) == {200}
    weights.write_bytes(sound)
    assert served.ask("POST", "/admin/reload", **ADMIN)[0] == 200


def test_a_connection_may_be_idle_for_longer_than_between_two_bursts(served: Process) -> None:
    connection = served.connect()
    assert ask(connection, "GET", "/v1/models")[0] == 200
    kept = connection.sock
    time.sleep(6)  # uvicorn would hang up after 5
    assert ask(connection, "GET", "/v1/models")[0] == 200
    assert connection.sock is kept


def test_the_curl_examples_of_the_documentation_reach_what_they_name(served: Process) -> None:
    if shutil.which("curl") is None:
        pytest.skip("There is no curl.")
    text = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text().replace("\\\n", "")
    commands = [line for line in text.splitlines() if line.startswith("curl ")]
    assert len(commands) > 10
    for command in commands:
        here = command.replace("localhost:8000", f"127.0.0.1:{served.port}").replace("b0ss", "boss")
        done = subprocess.run(here, shell=True, capture_output=True, text=True, check=True)
        if "/metrics" in command:
            assert "rqrec_requests_total" in done.stdout
            continue
        told = json.loads(done.stdout).get("error", {"code": "none"})
        assert told["code"] in ("none", "unknown_item", "unknown_prefix"), (command, told)  # the demo's ids


def test_it_stops_with_all_that_had_begun_answered(served: Process) -> None:
    request = {"histories": [["item 8"]] * 64, "k": 20, "explain": True}
    found: list[tuple[int, int]] = []

    def heavy(connection: http.client.HTTPConnection) -> None:
        status, body = ask(connection, "POST", "/v1/recommendations", request)
        found.append((status, len(body["recommendations"])))

    connections = [served.connect() for _ in range(6)]
    for connection in connections:
        assert ask(connection, "GET", "/healthz")[0] == 200  # it is open, and the server knows it
    threads = [threading.Thread(target=heavy, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    while "rqrec_waiting_histories" not in (text := metrics(served)) or waiting(text) < 64 * 4:
        assert len(found) < 2, "too quick to be stopped in time"
    assert served.stop() == 0
    for thread in threads:
        thread.join()
    assert found == [(200, 64)] * 6
    assert not [line for line in served.log if line["level"] == "error" and "reload" not in line["message"]]


def metrics(served: Process) -> str:
    connection = served.connect()
    connection.request("GET", "/metrics")
    return connection.getresponse().read().decode()


def waiting(text: str) -> float:
    (line,) = (line for line in text.splitlines() if line.startswith("rqrec_waiting_histories{"))
    return float(line.split()[-1])


def test_a_port_that_is_taken_and_a_folder_without_a_model_are_sentences(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "log_json", lambda level: None)  # the log of this process is pytest's
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(app, ["serve", "--artifact", str(tiny_run), "--port", port])
    assert (done.exit_code, "choose another --host or --port" in done.stderr) == (1, True)
    for options, status in (
        (["--artifact", str(tmp_path)], 1),
        (["--artifact", str(tiny_run), "--artifact", f"run={tiny_run}"], 1),
        (["--artifact", str(tiny_run), "--log-level", "loud"], 2),
        ([], 2),
    ):
        done = CliRunner().invoke(app, ["serve", *options])
        assert done.exit_code == status, done.stderr
        assert isinstance(done.exception, SystemExit)
