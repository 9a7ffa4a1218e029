"""What every request passes before it is understood: a name and a log line, who may ask, how large it may be."""

import asyncio
import hmac
import re
import secrets
import time
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rqrec.serving.errors import ApiError, error_response, later
from rqrec.serving.limits import RateLimiter
from rqrec.serving.logs import LOG
from rqrec.serving.metrics import Metrics
from rqrec.serving.settings import Settings

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
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds, and not worth a line


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a request's header, empty where there is none."""
    return next((value for key, value in scope["headers"] if key == name), b"")


def bearer(scope: Scope) -> str:
    """The token of a request, empty where there is none."""
    scheme, _, token = header(scope, b"authorization").decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def same_token(token: str, tokens: Sequence[str]) -> bool:
    """Whether a token is among those that are good, in a time that tells nothing of them."""
    given = token.encode("latin-1", "replace")
    matches = [bool(good) and hmac.compare_digest(given, good.encode()) for good in tokens]
    return any(matches)


class RequestLogging:
    """Names each request, adds the headers of every answer, and tells log and metrics how it ended.

    An exception ends here: the log has its traceback, the client a sentence.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0
        given = header(scope, b"x-request-id")
        request_id = given.decode() if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [*SECURITY_HEADERS, (b"x-request-id", request_id.encode())]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            LOG.exception("failed", extra={"facts": {"request_id": request_id}})
            if not status:
                error = ApiError(500, "internal", "The service failed; its log has this request's id.")
                await error_response(error, request_id)(scope, receive, send_with_headers)
        seconds = time.perf_counter() - start
        path = getattr(scope.get("route"), "path", "other")
        self._metrics.request(scope["method"], path, status, seconds)
        if path not in QUIET or status >= 400:
            facts = {
                "request_id": request_id,
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "ms": round(1e3 * seconds, 2),
                "client": (scope.get("client") or ("",))[0],
                **scope.get("facts", {}),
            }
            LOG.info("request", extra={"facts": facts})


class AuthMiddleware:
    """Refuses who has no token, who asks too often, and bodies that are too long or too slow."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._limiter = RateLimiter(settings.rate, settings.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or tell why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._admit(scope)
            receive = await self._whole_body(scope, receive)
        except ApiError as error:
            await error_response(error, scope["request_id"])(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        path, tokens = scope["path"], self._settings.tokens
        if not path.startswith(("/v1/", "/admin/")) and path != "/metrics":
            return
        token = bearer(scope)
        known = same_token(token, tokens)
        key = f"token {token}" if known else f"address {(scope.get('client') or ('',))[0]}"
        if path != "/metrics" and (wait := self._limiter.take(key)):
            raise later("rate_limited", f"More than {self._settings.rate:g} requests per second came.", wait)
        if tokens and not known and not path.startswith("/admin/"):
            raise ApiError(
                401,
                "unauthorized",
                "Send one of this service's tokens in the header `Authorization: Bearer TOKEN`.",
                {"WWW-Authenticate": "Bearer"},
            )

    async def _whole_body(self, scope: Scope, receive: Receive) -> Receive:
        """Read the body, within its limits, for the application to receive at once."""
        length = header(scope, b"content-length")
        if not length and not header(scope, b"transfer-encoding"):
            return receive
        limit, timeout = self._settings.max_body, self._settings.timeout
        too_large = ApiError(
            413, "too_large", f"A body may have {limit} bytes: send less.", {"Connection": "close"}
        )
        if length.isdigit() and int(length[:19]) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    message = await receive()
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise too_large
                    if not message.get("more_body", False):
                        break
        except TimeoutError as error:
            raise ApiError(
                408, "slow_body", f"The body did not come within {timeout:g} s.", {"Connection": "close"}
            ) from error
        messages = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        return replay
