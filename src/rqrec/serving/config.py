"""Configuration of the HTTP service."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from rqrec.core.device import AUTO
from rqrec.core.values import Config, NonNegativeFloat, PositiveInt, Range, Threads
from rqrec.retrieval.defaults import BEAM_WIDTH
from rqrec.serving.addresses import check_host, check_origin, check_proxy
from rqrec.serving.logs import LogFormat

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True)
class ServiceConfig(Config):
    """Options of the service; the defaults suit a machine with a few cores.

    Raises ValueError on a value that is not allowed.
    """

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 listens on all IPv4 addresses."""
    port: Annotated[int, Range(0, 65535)] = 8000
    """TCP port to listen on, 0 to 65535; 0 picks a free port and logs it."""
    threads: Threads = 1
    """Number of torch threads per model; leave a core for HTTP."""
    device: str = AUTO
    """Where the models compute: cpu, cuda or cuda:1; auto is a GPU if there is one."""
    beam_width: PositiveInt = BEAM_WIDTH
    """Number of prefixes that the beam search keeps."""
    max_batch: PositiveInt = 32
    """Maximum number of histories that a model processes in one batch."""
    max_wait_ms: Annotated[float, Range(0, 60_000)] = 3.0
    """Maximum time in milliseconds that the first request of a batch waits for others."""
    max_queue: PositiveInt = 256
    """Maximum number of histories queued per model; further requests are refused with status 429."""
    timeout: Annotated[float, Range(0, 86_400, above=True)] = 10.0
    """Time limit in seconds for reading a request's headers and its body (status 408), and for answering it (504)."""
    max_connections: PositiveInt = 1000
    """Maximum number of open connections; above it, the one that has been idle for longest is closed."""
    max_body: PositiveInt = 1 << 20
    """Maximum size of a request body in bytes (status 413)."""
    max_histories: PositiveInt = 64
    """Maximum number of histories in one request (status 422)."""
    max_history: PositiveInt = 1000
    """Maximum number of items in one history (status 422)."""
    max_results: PositiveInt = 3200
    """Maximum number of histories times k in one request; explained items count twice (status 422)."""
    rate: NonNegativeFloat = 0.0
    """Requests per second allowed per token or client address (status 429); 0 disables the limit."""
    burst: PositiveInt = 20
    """Number of requests that one token or client address may send at once when the rate is limited."""
    tokens: tuple[str, ...] = field(default=(), metadata={"flags": "--token", "envvar": "RQREC_TOKEN"})
    """Bearer tokens, one of which every request to /v1 and /metrics needs (status 401); none: open to all."""
    admin_token: str = field(default="", metadata={"envvar": "RQREC_ADMIN_TOKEN"})
    """Bearer token for POST /admin/reload and for changes of items; empty disables both over HTTP."""
    allow_origins: tuple[str, ...] = field(default=(), metadata={"flags": "--allow-origin"})
    """Web origins whose pages may call the service (CORS)."""
    allow_hosts: tuple[str, ...] = field(default=(), metadata={"flags": "--allow-host"})
    """Host names under which the service may be asked (status 421); none: localhost if only this machine can reach
    it, else any."""
    trusted_proxies: tuple[str, ...] = ()
    """IP addresses or networks (10.0.0.0/8) of proxies whose X-Forwarded-For header is trusted."""
    rules: Path | None = None
    """JSON file of rules by name, which requests can ask for, or which always apply; read again on a reload."""
    pictures: Path | None = None
    """Folder of pictures of the items, named by their ids (`50.jpg`) or by the catalogue's column `image`; listed
    again on a reload."""
    log_level: LogLevel = "info"
    """Least severe level that is logged: debug, info, warning or error."""
    log_format: LogFormat = "auto"
    """json: an object per line; text: only what concerns a person; auto: text on a terminal, else json."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """The host names under which the service may be asked; none: any.

        Without this check, a web page could give its own name the address of this machine, and would then count as
        being of the same origin (DNS rebinding).
        """
        return self.allow_hosts or (LOOPBACK if self.host in LOOPBACK else ())

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.host.strip():
            raise ValueError(
                f"host is {self.host!r}, but must be an address, such as 127.0.0.1 or 0.0.0.0 (all)."
            )
        for origin in self.allow_origins:
            check_origin(origin)
        for host in self.allow_hosts:
            check_host(host)
        for proxy in self.trusted_proxies:
            check_proxy(proxy)
        if not all(self.tokens):
            raise ValueError("A token is empty, so that anybody has it: write one, or leave the option out.")
        for token in (*self.tokens, self.admin_token):
            if not token.isascii() or any(character.isspace() for character in token):
                # The value stays out of the message: it is a secret, and messages end up in logs.
                raise ValueError(
                    "A token contains a space or a non-ASCII character: HTTP headers carry only ASCII without spaces."
                )
