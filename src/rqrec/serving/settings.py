"""What an operator chooses about the service."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Options of the service; the defaults suit a machine of a few cores.

    beam_width: prefixes that the search keeps
    max_batch: histories that a model answers at once
    max_wait: how long the first request of a batch waits for others (seconds)
    max_queue: histories that may wait for a model before requests are refused with 429
    timeout: time limit of a request, reading its body included (seconds)
    max_body: size of a request's body (bytes)
    max_histories, max_history: histories of a request, and item ids of a history
    rate, burst: requests per second of one key (token or address; 0: no limit), and how many may come at once
    tokens: bearer tokens of which a request needs one (none: open to all)
    admin_token: the token that may reload (empty: nobody may by HTTP)
    allow_origins: web origins whose pages may call the service

    Raises ValueError on values that no service can run with.
    """

    beam_width: int = 50
    max_batch: int = 32
    max_wait: float = 0.003
    max_queue: int = 256
    timeout: float = 10.0
    max_body: int = 1 << 20
    max_histories: int = 64
    max_history: int = 1000
    rate: float = 0.0
    burst: int = 20
    tokens: tuple[str, ...] = ()
    admin_token: str = ""
    allow_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = ("beam_width", "max_batch", "max_queue", "max_body", "max_histories", "max_history", "burst")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1.")
        if self.timeout <= 0:
            raise ValueError(f"timeout is {self.timeout} s, but must be above 0.")
        for name in ("max_wait", "rate"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must not be negative.")
        for token in (*self.tokens, self.admin_token):
            if not token.isascii() or any(character.isspace() for character in token):
                raise ValueError("A token must be ASCII without spaces: that is all an HTTP header carries.")
