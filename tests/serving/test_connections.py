"""Clients that send too much, too slowly, too often, or leave get an answer or an end, and others get theirs."""

import asyncio
import json
import logging
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request

from rqrec.serving.connections import (
    MAX_HEAD,
    MAX_PIPELINED,
    RESERVED_FILES,
    Connection,
    max_connections,
)
from rqrec.serving.logs import LOG
from tests.serving.running import running


@pytest.fixture(scope="module")
def port(tiny_run: Path) -> Iterator[int]:
    with running({"tiny": tiny_run}, max_connections=8) as address:
        yield int(address.rpartition(":")[2])


@pytest.fixture(scope="module")
def hasty_port(tiny_run: Path) -> Iterator[int]:
    with running({"tiny": tiny_run}, timeout=0.2) as address:
        yield int(address.rpartition(":")[2])


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def rest(connection: socket.socket) -> bytes:
    """Everything until the service closes the connection."""
    received = b""
    try:
        while part := connection.recv(1 << 16):
            received += part
    except ConnectionResetError:
        pass
    return received


def first_answers(connection: socket.socket, count: int) -> list[bytes]:
    """The next responses of a connection that stays open; heads and bodies may come apart."""
    answers = []
    with connection.makefile("rb") as stream:
        for _ in range(count):
            head = [stream.readline()]
            while head[-1].strip():
                head.append(stream.readline())
            length = next(
                int(line.split(b":")[1]) for line in head if line.lower().startswith(b"content-length:")
            )
            answers.append(b"".join(head) + stream.read(length))
    return answers


def one_answer(connection: socket.socket) -> bytes:
    return first_answers(connection, 1)[0]


def code(answer: bytes) -> str:
    return json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]


def ask(port: int, path: str = "/healthz") -> bytes:
    with connect(port) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return rest(connection)


HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
FILL = b"a" * (MAX_HEAD + 1)


@pytest.mark.parametrize(
    "request_head",
    [
        HEAD + b"X-A: " + FILL + b"\r\n\r\n",
        HEAD + b"X-A: " + FILL,
        HEAD + b"X-%d: a\r\n" * (MAX_HEAD // 8) + b"\r\n",
        b"GET /" + FILL,
        b"GET /" + FILL + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_large_headers_are_refused(port: int, request_head: bytes) -> None:
    with connect(port) as connection:
        connection.sendall(request_head)
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert code(answer) == "large_headers"
    assert b"200 OK" in ask(port)


def test_an_endless_header_or_trailer_ends_soon(port: int) -> None:
    chunked = b"POST /v1/recommendations HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    for head in (HEAD + b"X-A: ", chunked + b"1\r\n{\r\n0\r\nX-A: "):
        with connect(port) as connection:
            connection.sendall(head)
            with pytest.raises(OSError, match=r"."):  # reset, or a broken pipe
                for _ in range(1000):
                    connection.sendall(b"a" * 100_000)
    assert b"200 OK" in ask(port)


def test_large_headers_do_not_count_across_requests(port: int) -> None:
    with connect(port) as connection:
        request = HEAD + b"X-A: " + b"a" * (MAX_HEAD // 2) + b"\r\n\r\n"
        for _ in range(5):
            connection.sendall(request)
            assert one_answer(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("start", [b"", b"\r\n", b"GET / HT", HEAD + b"X-A: b\r\n"])
def test_headers_have_a_deadline(hasty_port: int, start: bytes) -> None:
    """Also on a connection that has served a request."""
    for before in (b"", HEAD + b"\r\n"):
        with connect(hasty_port) as connection:
            if before:
                connection.sendall(before)
                assert one_answer(connection).startswith(b"HTTP/1.1 200 ")
            if not before or start:  # an idle connection is kept
                connection.sendall(start)
                answer = rest(connection)
                if not start:  # it has asked for nothing
                    assert answer == b""
                    continue
                assert (answer.startswith(b"HTTP/1.1 408 "), code(answer)) == (True, "slow_headers")


def test_a_body_has_a_deadline(hasty_port: int) -> None:
    with connect(hasty_port) as connection:
        connection.sendall(
            b"POST /v1/recommendations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"
        )
        assert code(rest(connection)) == "slow_body"


def test_what_is_not_http_is_refused_in_the_same_shape(port: int) -> None:
    for start in (b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"):
        with connect(port) as connection:
            connection.sendall(start)
            answer = rest(connection)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert code(answer) == "bad_request"


def test_a_body_that_is_not_http_is_refused_while_it_is_read(port: int) -> None:
    head = b"POST /v1/recommendations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with connect(port) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        time.sleep(0.1)
        connection.sendall(b"zz\r\n")
        answer = rest(connection)
        assert (answer.startswith(b"HTTP/1.1 400 "), code(answer)) == (True, "bad_request")


def test_a_few_requests_may_be_sent_before_the_first_is_answered(port: int) -> None:
    with connect(port) as connection:
        connection.sendall((HEAD + b"\r\n") * MAX_PIPELINED)
        for answer in first_answers(connection, MAX_PIPELINED):
            assert answer.startswith(b"HTTP/1.1 200 ")
        connection.sendall(HEAD + b"\r\n")
        assert b"connection: close" not in one_answer(connection).lower()


def test_of_very_many_requests_at_once_the_first_are_answered(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are not even parsed, and are for the client to send again."""
    parsed, on_url = [], Connection.on_url
    monkeypatch.setattr(Connection, "on_url", lambda self, url: (parsed.append(url), on_url(self, url)))
    with connect(port) as connection:
        connection.sendall((HEAD + b"\r\n") * 8000)
        answers = rest(connection).lower()
    assert answers.count(b"http/1.1 200 ") == MAX_PIPELINED + 1
    assert answers.count(b"connection: close") == 1
    assert answers.rindex(b"http/1.1") < answers.index(b"connection: close")
    assert len(parsed) == MAX_PIPELINED + 2


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], socket.socket]:
    """Makes clients that ask a service for much, and read nothing; the system keeps little of it."""
    made = Connection.connection_made

    def connection_made(self: Connection, transport: asyncio.Transport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        made(self, transport)

    monkeypatch.setattr(Connection, "connection_made", connection_made)

    def ask_for_much(address: str) -> socket.socket:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", int(address.rpartition(":")[2])))
        connection.settimeout(60)
        connection.sendall(b"GET /static/item_map.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * MAX_PIPELINED)
        return connection

    return ask_for_much


def test_a_client_that_reads_nothing_does_not_stay(
    tiny_run: Path, unread: Callable[[str], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rqrec.serving.server.KEEP_ALIVE", 0.5)
    with running({"tiny": tiny_run}) as address, unread(address) as connection:
        time.sleep(2)
        assert rest(connection).count(b"HTTP/1.1 200 ") < MAX_PIPELINED


def test_clients_that_read_nothing_make_room_for_others(
    tiny_run: Path, unread: Callable[[str], socket.socket]
) -> None:
    with running({"tiny": tiny_run}, max_connections=2) as address:
        unreading = [unread(address) for _ in range(2)]
        time.sleep(1)  # until the service has written all that it can
        assert b"200 OK" in ask(int(address.rpartition(":")[2]))
        for one in unreading:
            one.close()


def test_work_for_a_client_that_leaves_ends_also_if_it_had_sent_more_requests(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = threading.Event()

    async def waits(future: Any, request: Request, seconds: float) -> list[bytes]:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left.set()
        return [b"{}"]

    monkeypatch.setattr("rqrec.serving.app.answer", waits)
    post = b"POST /v1/recommendations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with running({"tiny": tiny_run}) as address:
        with connect(int(address.rpartition(":")[2])) as connection:
            connection.sendall(post + b'Content-Length: 14\r\n\r\n{"history":[]}' + HEAD + b"\r\n")
            time.sleep(0.5)
        assert left.wait(10)


def test_a_request_has_one_host(port: int) -> None:
    with connect(port) as connection:
        for hosts in (b"Host: localhost\r\nHost: evil\r\n", b""):
            connection.sendall(b"GET /healthz HTTP/1.1\r\n" + hosts + b"\r\n")
            answer = one_answer(connection)
            assert (answer.startswith(b"HTTP/1.1 400 "), code(answer)) == (True, "bad_request")
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert rest(connection).startswith(b"HTTP/1.1 200 ")


def test_the_host_in_a_url_is_the_one_that_counts(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET http://localhost/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert one_answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET http://[::1]:8000/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert one_answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert code(one_answer(connection)) == "wrong_host"


def test_an_upgrade_is_answered_without_advice_to_install(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    with connect(port) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + upgrade + b"\r\n")
        assert one_answer(connection).startswith(b"HTTP/1.1 200 ")
    assert "pip install" not in caplog.text


def test_idle_connections_make_room_for_new_ones(port: int) -> None:
    idle = [connect(port) for _ in range(20)]
    time.sleep(0.05)
    try:
        for _ in range(10):
            assert b"200 OK" in ask(port)
    finally:
        for connection in idle:
            connection.close()


def test_connections_leave_descriptors_for_other_files() -> None:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert max_connections(10**9) <= files - RESERVED_FILES
    assert max_connections(5) == 5


def test_clients_that_leave_early_are_no_error(port: int, caplog: pytest.LogCaptureFixture) -> None:
    body = b'{"histories": [' + b"[]," * 63 + b'[]], "k": 20}'
    post = b"POST /v1/recommendations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with caplog.at_level(logging.INFO):
        LOG.propagate, before = True, LOG.propagate
        try:
            for sent in (
                post + b"Content-Length: %d\r\n\r\n" % len(body) + body,
                post + b"Content-Length: 99\r\n\r\n{",
                HEAD,
                HEAD + b"\r\n",
                b"GET /v1/items?page_size=100 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            ):
                for _ in range(3):
                    connection = connect(port)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset
                    connection.sendall(sent)
                    connection.close()
            assert b"200 OK" in ask(port)
            time.sleep(0.2)
        finally:
            LOG.propagate = before
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
