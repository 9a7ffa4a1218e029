"""Configuration of the HTTP service."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from rqrec.retrieval.retriever import BEAM_WIDTH

LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True)
class ServiceConfig:
    """Options of the service; the defaults suit a machine with a few cores.

    Raises ValueError on a value that is not allowed.
    """

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 listens on all IPv4 addresses."""
    port: int = 8000
    """TCP port to listen on, 0 to 65535; 0 picks a free port and logs it."""
    threads: int = 1
    """Number of torch threads per model; leave a core for HTTP."""
    beam_width: int = BEAM_WIDTH
    """Number of prefixes that the beam search keeps."""
    max_batch: int = 32
    """Maximum number of histories that a model processes in one batch."""
    max_wait_ms: float = 3.0
    """Maximum time in milliseconds that the first request of a batch waits for others."""
    max_queue: int = 256
    """Maximum number of histories queued per model; further requests are refused with status 429."""
    timeout: float = 10.0
    """Time limit in seconds for reading a request's body (status 408) and for answering it (status 504)."""
    max_body: int = 1 << 20
    """Maximum size of a request body in bytes (status 413)."""
    max_histories: int = 64
    """Maximum number of histories in one request (status 422)."""
    max_history: int = 1000
    """Maximum number of items in one history (status 422)."""
    rate: float = 0.0
    """Requests per second allowed per token or client address (status 429); 0 disables the limit."""
    burst: int = 20
    """Number of requests that one token or client address may send at once when the rate is limited."""
    tokens: tuple[str, ...] = field(default=(), metadata={"flags": "--token", "envvar": "RQREC_TOKEN"})
    """Bearer tokens, one of which every request to /v1 and /metrics needs (status 401); none: open to all."""
    admin_token: str = field(default="", metadata={"envvar": "RQREC_ADMIN_TOKEN"})
    """Bearer token for POST /admin/reload; empty disables reloading over HTTP."""
    allow_origins: tuple[str, ...] = field(default=(), metadata={"flags": "--allow-origin"})
    """Web origins whose pages may call the service (CORS)."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses of proxies whose X-Forwarded-For header is trusted."""
    log_level: LogLevel = "info"
    """Least severe level that is logged: debug, info, warning or error."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}, but must be from 0 (any free port) to 65535.")
        for name in (
            "threads",
            "beam_width",
            "max_batch",
            "max_queue",
            "max_body",
            "max_histories",
            "max_history",
            "burst",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1.")
        if not self.timeout > 0:
            raise ValueError(f"timeout is {self.timeout} s, but must be greater than 0.")
        for name in ("max_wait_ms", "rate"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be 0 or more.")
        for token in (*self.tokens, self.admin_token):
            if not token.isascii() or any(character.isspace() for character in token):
                # The value stays out of the message: it is a secret, and messages end up in logs.
                raise ValueError(
                    "A token contains a space or a non-ASCII character: HTTP headers carry only ASCII without spaces."
                )
        if self.log_level not in get_args(LogLevel):
            raise ValueError(
                f"log_level is {self.log_level!r}, but must be one of {', '.join(get_args(LogLevel))}."
            )
