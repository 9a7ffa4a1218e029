"""Settings of a reproduction, apart from what it imports to run, so that its help is there at once."""

from dataclasses import dataclass

from rqrec.core.values import Config, Minutes, PositiveInt, Threads
from rqrec.stages.prepare import PrepareOptions


@dataclass(frozen=True)
class ReproduceConfig(Config):
    """Options of a reproduction; the recipe sets everything else."""

    seeds: PositiveInt = 1
    """Number of training runs, with seeds 0, 1, ..."""
    max_minutes: Minutes = 30.0
    """Time budget for all stages; training gets 60 % of what the earlier stages leave."""
    jobs: Threads | None = None
    """How many models are trained at once, with one thread each; None: one per core."""
    encoder: str | None = None
    """A sentence-transformers model, by name or folder; by default that of the recipe."""
    prepare: PrepareOptions = PrepareOptions()
