"""Connections that ask for nothing are not accepted, and a flood of others leaves time for the rest."""

import select
import socket
from collections.abc import Iterator
from itertools import chain

import pytest

from rqrec.serving.config import ServiceConfig
from rqrec.serving.listener import AT_ONCE, Listener, listen


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listen(ServiceConfig(port=0)) as one:
        one.setblocking(False)
        yield one


def clients(listener: Listener, count: int, say: bytes = b"") -> list[socket.socket]:
    made = [socket.create_connection(listener.getsockname()) for _ in range(count)]
    for one in made:
        one.sendall(say)
    return made


def accepted(listener: Listener) -> list[tuple[str, int]]:
    """The addresses of those that one turn of an event loop accepts."""
    select.select([listener], [], [], 0.2)
    found = []
    try:
        while True:
            connection, address = listener.accept()
            found.append(address)
            connection.close()
    except BlockingIOError:
        return found


def addresses(connections: list[socket.socket]) -> list[tuple[str, int]]:
    return [one.getsockname() for one in connections]


def close(connections: list[socket.socket]) -> None:
    for one in connections:
        one.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_DEFER_ACCEPT"), reason="only Linux keeps them back")
def test_silent_clients_are_kept_back_until_they_speak(listener: Listener) -> None:
    silent = clients(listener, 20)
    assert accepted(listener) == []
    speaking = clients(listener, 1, b"G")
    assert accepted(listener) == addresses(speaking)
    silent[7].sendall(b"G")
    assert accepted(listener) == addresses(silent[7:8])
    close([*silent, *speaking])


def test_those_that_left_without_a_word_are_not_accepted(listener: Listener) -> None:
    close(clients(listener, 5))
    speaking = clients(listener, 1, b"G")
    assert accepted(listener) == addresses(speaking)
    close(clients(listener, 3 * AT_ONCE))
    for _ in range(4):
        assert accepted(listener) == []
    assert not select.select([listener], [], [], 0)[0]  # all of them have been taken off the queue
    close(speaking)


def test_one_that_left_after_its_request_is_accepted(listener: Listener) -> None:
    """It may have closed its own side only."""
    left = clients(listener, 1, b"GET / HTTP/1.1\r\n\r\n")
    address = addresses(left)
    close(left)
    assert accepted(listener) == address


def test_a_turn_of_the_event_loop_accepts_some_of_many(listener: Listener) -> None:
    speaking = clients(listener, 2 * AT_ONCE + 3, b"G")
    turns = [accepted(listener) for _ in range(4)]
    assert list(map(len, turns)) == [AT_ONCE, AT_ONCE, 3, 0]
    assert sorted(chain(*turns)) == sorted(addresses(speaking))
    close(speaking)
