"""Settings of making semantic IDs, apart from what it imports to run, so that its help is there at once."""

from dataclasses import dataclass

from rqrec.core.device import AUTO
from rqrec.core.values import Config

COLLISIONS = ("extra_code", "reassign")


@dataclass(frozen=True)
class TokenizeConfig(Config):
    """How items with the same codes get unique semantic IDs."""

    collisions: str = "extra_code"
    """extra_code: append a deduplication code; reassign: move colliding items to free codes of the last level."""
    device: str = AUTO
    """Where the tokenizer computes: cpu, cuda or cuda:1; auto is a GPU if there is one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.collisions not in COLLISIONS:
            raise ValueError(f"collisions is {self.collisions!r}; allowed are {', '.join(COLLISIONS)}.")
