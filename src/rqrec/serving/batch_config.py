"""Settings of batch recommendation, apart from what it imports to run, so that its help is there at once."""

from dataclasses import dataclass, field
from typing import Literal

from rqrec.core.device import AUTO
from rqrec.core.values import Config, PositiveInt
from rqrec.retrieval.defaults import BEAM_WIDTH
from rqrec.serving.rules import RuleSettings

# Users per search. Parts are multiples of it, so that a user is always searched together with the same others.
BATCH = 64


@dataclass(frozen=True)
class BatchConfig(Config):
    """Options of batch recommendation.

    Raises ValueError on a value that is not allowed.
    """

    k: PositiveInt = 20
    """Number of items to recommend to each user."""
    beam_width: PositiveInt = BEAM_WIDTH
    """Number of prefixes that the beam search keeps; at least k are kept."""
    device: str = AUTO
    """Where the model computes: cpu, cuda or cuda:1; auto is a GPU if there is one."""
    exclude_seen: bool | None = field(default=None, metadata={"flags": "--exclude-seen/--allow-seen"})
    """Whether to exclude the items of a user's history; by default as in the model's training."""
    unknown: Literal["raise", "skip"] = "raise"
    """Whether an item id that is not in the catalogue is an error (raise) or skipped and counted (skip)."""
    experts: tuple[str, ...] = ()
    """Ask these experts of a joined model only: their names, codes, dense, neighbours, or trained (all but the
    neighbours); by default all."""
    rules: RuleSettings = RuleSettings()
    rows_per_part: PositiveInt = 8192
    """Users per part, a multiple of 64: the most work that an interruption loses per worker."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows_per_part % BATCH:
            raise ValueError(f"rows_per_part is {self.rows_per_part}, but must be a multiple of {BATCH}.")
