"""Clients that send too much, too slowly, too often, or leave get an answer or an end, and others get theirs."""

import json
import logging
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rqrec.serving.connections import MAX_HEAD, RESERVED_FILES, max_connections
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


def one_answer(connection: socket.socket) -> bytes:
    """One response, of a connection that stays open; its head and its body may come apart."""
    with connection.makefile("rb") as stream:
        head = [stream.readline()]
        while head[-1].strip():
            head.append(stream.readline())
        length = next(
            int(line.split(b":")[1]) for line in head if line.lower().startswith(b"content-length:")
        )
        return b"".join(head) + stream.read(length)


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


def test_a_request_has_one_host(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n")
        answer = one_answer(connection)
        assert (answer.startswith(b"HTTP/1.1 400 "), code(answer)) == (True, "bad_request")


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
