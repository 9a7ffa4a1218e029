"""What a request is told when it cannot be answered: one shape for all failures."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response


class ApiError(Exception):
    """A failure that the client is told: an HTTP status, a code for programs, a sentence for people."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})


class Json(Response):
    """A JSON response; ASCII alone, so that no string of a request or a catalogue can break it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of the body."""
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def error_response(error: ApiError, request_id: str) -> Json:
    """The answer that tells an error."""
    body = {"code": error.code, "message": error.message, "request_id": request_id}
    return Json({"error": body}, error.status, error.headers)


def later(code: str, message: str, seconds: float) -> ApiError:
    """Status 429: come again after so many seconds (rounded up, at least 1)."""
    wait = max(1, int(-(-seconds // 1)))
    return ApiError(429, code, f"{message} Try again in {wait} s.", {"Retry-After": str(wait)})
