"""The listening socket: clients that connect and ask for nothing cost the event loop little.

A connection costs it half a millisecond before its first byte is read, and nobody else is served meanwhile.
"""

import socket
from typing import Any

from rqrec.serving.config import ServiceConfig

WAITING = 2048  # connections that the system keeps until they are accepted
AT_ONCE = 16  # connections that are accepted before the event loop serves others again
# Seconds that an idle connection stays open. Proxies keep theirs open for a minute; if the service closed
# first, a request in flight at that moment would be lost.
KEEP_ALIVE = 75


class Listener(socket.socket):
    """A listening socket whose connections have something to say, as far as can be known without waiting."""

    _looked_at = 0  # since there was none, or the event loop served others

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection that its client has not closed without a word.

        Raises BlockingIOError if there is none, and also, so that the event loop asks again later, after some.
        """
        try:
            while self._looked_at < AT_ONCE:
                self._looked_at += 1
                connection, address = super().accept()
                if not _has_left(connection):
                    return connection, address
                connection.close()
            raise BlockingIOError
        except BlockingIOError:
            self._looked_at = 0
            raise


def listen(config: ServiceConfig) -> Listener:
    """A listening socket on the host and port of a service. Raises OSError or UnicodeError if there can be none."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = Listener(
        fileno=socket.create_server((config.host, config.port), family=family, backlog=WAITING).detach()
    )
    if hasattr(socket, "TCP_DEFER_ACCEPT"):  # Linux keeps connections back until their first bytes arrive
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, KEEP_ALIVE)
    return listener


def _has_left(connection: socket.socket) -> bool:
    """Whether the client has closed the connection, and sent nothing."""
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
