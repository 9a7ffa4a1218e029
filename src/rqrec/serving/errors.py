"""Error responses: every failure has the same JSON shape."""

import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response


class ApiError(Exception):
    """A failure reported to the client: HTTP status, machine-readable code, human-readable message."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})


def to_json(content: Any) -> bytes:
    """JSON, escaped to ASCII so that no string of a request or a catalogue can break it."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


class JsonResponse(Response):
    """A JSON response."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the body."""
        return to_json(content)


def error_response(error: ApiError, request_id: str) -> JsonResponse:
    """The response for an error."""
    body = {"code": error.code, "message": error.message, "request_id": request_id}
    return JsonResponse({"error": body}, error.status, error.headers)


def client_left() -> ApiError:
    """The end of a request whose client closed the connection: nobody reads it, but the log has its status."""
    return ApiError(499, "client_left", "The client closed the connection before it was answered.")


def too_many_requests(code: str, message: str, seconds: float) -> ApiError:
    """Status 429 with Retry-After: `seconds`, rounded up to whole seconds, at least 1."""
    wait = max(1, math.ceil(seconds))
    return ApiError(429, code, f"{message} Try again in {wait} s.", {"Retry-After": str(wait)})
