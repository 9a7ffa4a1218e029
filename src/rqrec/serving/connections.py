"""HTTP connections with limits: on their number, on the size and the time of a request's head, and on pipelining.

uvicorn leaves these to a proxy in front of it; a service that is reached directly needs its own.
"""

import asyncio
import resource
import secrets
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from rqrec.serving.config import ServiceConfig
from rqrec.serving.errors import ApiError, error_response

MAX_HEAD = 32 << 10  # bytes of a request's first line and headers, or of what follows a body
MAX_PIPELINED = 16  # requests that wait for the answer to an earlier one on their connection
RESERVED_FILES = 64  # descriptors that are not connections: artefacts, log, listening socket


class Connection(HttpToolsProtocol):
    """A connection that ends if a request's head is too large or too slow, or if its client reads no answers.

    Of many requests that are sent before earlier ones are answered, the first are answered and the connection is
    closed, so that the client sends the others again (RFC 9112, section 9.3.2). Above the limit of connections, the
    one that has been idle for longest, or whose client does not read, is closed.
    """

    limits: ServiceConfig
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _answered: RequestResponseCycle | None = None  # the request that is, or was, answered last
    _is_last = False  # whether the connection is closed after the requests that have arrived
    _unfinished = 0  # bytes since the last complete head or part of a body
    _by_activity: "dict[Connection, None]"
    """All open connections, from the one that has been silent for longest to the last one that was heard."""

    @classmethod
    def limited_by(cls, config: ServiceConfig) -> "type[Connection]":
        """The protocol with the limits of a service, as uvicorn takes it."""
        return type("LimitedConnection", (cls,), {"limits": config, "_by_activity": {}})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit: a client that sends nothing does not stay."""
        super().connection_made(transport)
        self._by_activity[self] = None
        self._start_deadline()
        if len(self._by_activity) > max_connections(self.limits.max_connections):
            silent = next(one for one in self._by_activity if one.is_idle or one.flow.write_paused)
            del self._by_activity[silent]
            silent.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release what the connection holds."""
        self._stop_deadline()
        self._stop_waiting_for_reader()
        self._by_activity.pop(self, None)
        if self._answered is not None:  # uvicorn tells the last request that arrived, which may be another
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _reads_body(self) -> bool:
        """Whether the body of the request is not complete, and its answer has not begun."""
        return self.cycle is not None and self.cycle.more_body and not self.cycle.response_started

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, unless a head grows beyond its limit."""
        if self._is_last:
            return
        self._by_activity[self] = self._by_activity.pop(self, None)
        self._unfinished += len(data)
        if self.is_idle:
            self._start_deadline()
        super().data_received(data)
        if self._unfinished > MAX_HEAD:
            self._refuse_head()

    def on_message_begin(self) -> None:
        """Start the time limit of a head."""
        super().on_message_begin()
        self._start_deadline()

    def on_headers_complete(self) -> None:
        """Answer the request, if its head is not too large."""
        self._stop_deadline()
        self._unfinished = 0
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD:
            self._refuse_head()
        elif len(self.pipeline) >= MAX_PIPELINED:
            self.cycle.keep_alive, self._is_last = False, True
            raise _TooManyError  # ends the parsing of what has arrived: there may be thousands more
        elif not self.transport.is_closing():
            if (host := httptools.parse_url(self.url).host) is not None:
                self._set_host(b"[%s]" % host if b":" in host else host)
            super().on_headers_complete()

    def _set_host(self, host: bytes) -> None:
        """Put the host of a URL in the place of the header's, which it overrides (RFC 9112, section 3.2.2)."""
        self.headers[:] = [(b"host", host), *(one for one in self.headers if one[0] != b"host")]

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, whose size `AuthMiddleware` limits."""
        self._unfinished = 0
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        self._unfinished = 0
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the client to read the last answer."""
        super().on_response_complete()
        if self.transport.is_closing():
            self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def pause_writing(self) -> None:
        """Wait for the client to read, for a time."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        self._stop_waiting_for_reader()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, even if its client has not read everything."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        if self._is_last:
            return
        self._refuse(400, "bad_request", "This is not a valid HTTP request.")

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: there is no WebSocket, and the request is answered as any other."""

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.limits.timeout, self._too_slow)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_waiting_for_reader(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _too_slow(self) -> None:
        seconds = self.limits.timeout
        if not self._unfinished:  # there may be a thousand of them at once, and none reads an answer
            self.transport.abort()
            return
        self._refuse(
            408, "slow_headers", f"The headers did not arrive within {seconds:g} s: send them faster."
        )

    def _refuse_head(self) -> None:
        self._refuse(431, "large_headers", f"The headers have more than {MAX_HEAD} bytes: send less.")

    def _refuse(self, status: int, code: str, message: str) -> None:
        if self.transport.is_closing():
            return
        if self.is_idle or self._reads_body:  # else the bytes would be taken for a part of the answer before
            request_id = secrets.token_hex(8)
            headers = {"Connection": "close", "X-Request-ID": request_id}
            response = error_response(ApiError(status, code, message, headers), request_id)
            head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
            head += [name + b": " + value for name, value in response.raw_headers]
            self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        self.transport.close()
        self.loop.call_later(self.limits.timeout, self.transport.abort)


class _TooManyError(Exception):
    """More requests than may wait."""


def max_connections(wanted: int) -> int:
    """The number of connections that may be open: as many as wanted and the system's limit of open files allows."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if files == resource.RLIM_INFINITY else max(1, min(wanted, files - RESERVED_FILES))
