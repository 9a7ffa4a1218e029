"""Settings of an evaluation, apart from what it imports to run, so that its help is there at once."""

from dataclasses import dataclass, field
from typing import Literal

from rqrec.core.device import AUTO
from rqrec.core.values import Config, NonNegativeInt, PositiveInt
from rqrec.data.splits import get_protocol


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """What is measured, and how."""

    split: Literal["test", "validation"] = "test"
    """test or validation."""
    protocol: str | None = None
    """leave_one_out or temporal; by default the protocol that the model was trained with."""
    beam_width: PositiveInt | None = None
    """Prefixes that the beam search of a retrieval model keeps; by default 50."""
    experts: tuple[str, ...] = ()
    """Evaluate these experts of a joined model only: their names, codes, dense, neighbours, or trained (all but the
    neighbours); by default all."""
    exclude_seen: bool | None = field(default=None, metadata={"flags": "--exclude-seen/--allow-seen"})
    """Whether the headline metrics exclude the items of the history; by default as in the model's training, and True
    for baselines. The metrics of the other choice are reported too."""
    seed: NonNegativeInt = 0
    """Seed of the bootstrap intervals and tests."""
    device: str = AUTO
    """Where the model computes: cpu, cuda or cuda:1; auto is a GPU if there is one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protocol is not None:
            get_protocol(self.protocol)  # raises for an unknown name
