"""Settings of the cold-item experiment, apart from what it imports to run, so that its help is there at once."""

from dataclasses import dataclass

from rqrec.core.device import AUTO
from rqrec.core.values import Config, Fraction, NonNegativeInt, PositiveInt
from rqrec.retrieval.defaults import BEAM_WIDTH


@dataclass(frozen=True)
class HoldOutConfig(Config):
    """Which items are held out."""

    share: Fraction = 0.05
    """Share of the items with interactions to hold out."""
    seed: NonNegativeInt = 0
    """Seed of the random selection."""


@dataclass(frozen=True)
class EvaluateColdConfig(Config):
    """How cold items are evaluated."""

    device: str = AUTO
    """Where the model computes: cpu, cuda or cuda:1; auto is a GPU if there is one."""
    beam_width: PositiveInt = BEAM_WIDTH
    """Prefixes that the beam search keeps."""
    seed: NonNegativeInt = 0
    """Seed of the bootstrap intervals."""
