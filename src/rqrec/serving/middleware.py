"""Middleware for every request: request ids and logging, authentication, and size and rate limits."""

import asyncio
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import parse_qsl, quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rqrec.serving.config import ServiceConfig
from rqrec.serving.errors import ApiError, client_left, error_response, too_many_requests
from rqrec.serving.limits import RateLimiter
from rqrec.serving.logs import LOG
from rqrec.serving.metrics import Metrics

SECURITY_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        b"frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
API = ("/v1/", "/admin/")  # how the paths of programs begin; others are those of pages and probes
RECOMMENDATIONS = "/v1/recommendations"
ITEMS = "/v1/items/"  # followed by the id of an item
LONG_BODY = 1 << 15  # bytes: dozens of histories, or thousands of items
REFUSED_AFTER = 1.0  # seconds, for a long body while the queue is full
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# Polled every few seconds: logged only when they fail.
UNLOGGED_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a request header, empty if it is absent."""
    return next((value for key, value in scope["headers"] if key == name), b"")


def bearer_token(scope: Scope) -> str:
    """The bearer token of a request, empty if there is none."""
    scheme, _, token = header(scope, b"authorization").decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def host_name(host: bytes) -> str:
    """The name in a Host header, in lower case and without port and brackets; empty if there is none."""
    name = host.decode("latin-1").strip().lower()
    return (name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]).rstrip(".")


def is_valid_token(token: str, valid_tokens: Sequence[str]) -> bool:
    """Whether a token is one of the valid ones; constant-time, so that timing reveals nothing about them."""
    given = token.encode("latin-1", "replace")
    matches = [bool(valid) and hmac.compare_digest(given, valid.encode()) for valid in valid_tokens]
    return any(matches)


class RequestLogging:
    """Assigns request ids, adds the common response headers, and records each request in log and metrics.

    Unhandled exceptions end here: the traceback is logged, and the client gets status 500 without it.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0
        client_id = header(scope, b"x-request-id")
        request_id = client_id.decode() if REQUEST_ID.fullmatch(client_id) else secrets.token_hex(8)
        scope["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                common = [*SECURITY_HEADERS, (b"x-request-id", request_id.encode())]
                message["headers"] = [*message.get("headers", ()), *common]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            LOG.exception("failed", extra={"fields": {"request_id": request_id}})
            if not status:
                error = ApiError(500, "internal", "The service failed: look for this request id in its log.")
                await error_response(error, request_id)(scope, receive, send_with_headers)
        seconds = time.perf_counter() - start
        path = getattr(scope.get("route"), "path", "other")
        self._metrics.observe_request(scope["method"], path, status, seconds)
        if path not in UNLOGGED_PATHS or status >= 400:
            fields = {
                "request_id": request_id,
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "ms": round(1e3 * seconds, 2),
                "client": (scope.get("client") or ("",))[0],
                **scope.get("log_fields", {}),
            }
            LOG.info("request", extra={"fields": fields})


class EncodedItemIds:
    """Leaves ids in paths percent-encoded until their route is known: one may hold a slash, or end in `/similar`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with the path as it was sent."""
        if scope["type"] == "http" and scope["path"].startswith(ITEMS):
            sent = scope.get("raw_path") or quote(scope["path"]).encode()
            scope["path"] = sent.decode("latin-1")
        await self._app(scope, receive, send)


class AuthMiddleware:
    """Refuses requests to another host, without a token, above the rate limit, or with a too large or slow body.

    It also refuses to recommend to more clients at once than the models have room for. Before the queue of a model is
    full, the thread that reads requests can be: what it need not read costs it little.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: ServiceConfig,
        busy: Callable[[], float | None],
        n_models: Callable[[], int],
    ) -> None:
        """`busy` says after how many seconds a model accepts large requests, or None if one does now."""
        self._app, self._config, self._busy, self._n_models = app, config, busy, n_models
        self._limiter = RateLimiter(config.rate, config.burst)
        self._recommending = 0  # requests that are being read, wait, or are being answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with the reason for refusing it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._admit(scope)
            with self._place(scope):
                receive = await self._read_body(scope, receive)
                await self._app(scope, receive, send)
        except ApiError as error:
            await error_response(error, scope["request_id"])(scope, receive, send)

    @contextmanager
    def _place(self, scope: Scope) -> Iterator[None]:
        """A place for the request until it is answered; only requests for recommendations need one."""
        if scope["path"] != RECOMMENDATIONS:
            yield
            return
        room = (self._config.max_queue + self._config.max_batch) * self._n_models()
        if self._recommending >= room:
            raise too_many_requests("busy", "The request queue is full.", self._busy() or 0.0)
        self._recommending += 1
        try:
            yield
        finally:
            self._recommending -= 1

    def _admit(self, scope: Scope) -> None:
        n_hosts = sum(name == b"host" for name, _ in scope["headers"])
        if n_hosts > 1 or (n_hosts == 0 and scope.get("http_version") == "1.1"):  # RFC 9112, section 3.2
            raise ApiError(400, "bad_request", f"The request has {n_hosts} Host headers: send one.")
        host, hosts = host_name(header(scope, b"host")), self._config.hosts
        if host and hosts and host not in hosts:
            raise ApiError(
                421,
                "wrong_host",
                f"The service is not asked as {host[:100]!r}, but as {' or '.join(hosts)}. Its option --allow-host "
                "allows other names.",
            )
        path, tokens = scope["path"], self._config.tokens
        if not path.startswith(API) and path != "/metrics":
            return
        names = [
            name for name, _ in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        ]
        if len(set(names)) < len(names):
            repeated = next(name for name in names if names.count(name) > 1)
            raise ApiError(
                422,
                "repeated_parameter",
                f"The parameter {repeated[:100]!r} is given more than once: give it once.",
            )
        token = bearer_token(scope)
        valid = is_valid_token(token, [*tokens, self._config.admin_token])
        key = f"token {token}" if valid else f"address {(scope.get('client') or ('',))[0]}"
        if path != "/metrics" and (wait := self._limiter.take(key)):
            raise too_many_requests(
                "rate_limited", f"The limit is {self._config.rate:g} requests per second.", wait
            )
        if tokens and not valid and not path.startswith("/admin/"):
            raise ApiError(
                401,
                "unauthorized",
                "Send one of this service's tokens in the header `Authorization: Bearer TOKEN`.",
                {"WWW-Authenticate": "Bearer"},
            )

    async def _read_body(self, scope: Scope, receive: Receive) -> Receive:
        """Read the body within its size and time limits; the application then receives it as one message."""
        length = header(scope, b"content-length")
        if not length and not header(scope, b"transfer-encoding"):
            return receive
        limit, timeout = self._config.max_body, self._config.timeout
        too_large = ApiError(
            413, "too_large", f"The body is larger than {limit} bytes: send less.", {"Connection": "close"}
        )
        if length.isdigit() and int(length[:19]) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise client_left()
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise too_large
                    if not message.get("more_body", False):
                        break
        except TimeoutError as error:
            raise ApiError(
                408,
                "slow_body",
                f"The body did not arrive within {timeout:g} s: send it faster, or less.",
                {"Connection": "close"},
            ) from error
        # Others wait while the text of a long body is read, so it is not read to be refused, nor sent anew at once.
        is_long = len(body) > LONG_BODY and scope["path"] == RECOMMENDATIONS
        if is_long and (seconds := self._busy()) is not None:
            body.clear()
            await asyncio.sleep(REFUSED_AFTER)
            raise too_many_requests("busy", "The request queue is full.", seconds)
        messages = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        return replay
