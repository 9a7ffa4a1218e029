"""Settings of a quickstart, apart from what it imports to run, so that its help is there at once."""

from dataclasses import dataclass

from rqrec.core.values import Config, Minutes, Threads
from rqrec.data.sources.custom import CustomOptions
from rqrec.stages.prepare import PrepareOptions

FEW = 0.05  # share of a file's rows that may be unusable: with more, the file is probably not read as it is meant


@dataclass(frozen=True)
class QuickstartConfig(Config):
    """Options of a quickstart; the recipe sets everything else."""

    minutes: Minutes = 8.0
    """Time budget; training gets most of what reading the files and encoding the texts leave."""
    jobs: Threads | None = None
    """How many models are trained at once, with one thread each; None: one per core."""
    encoder: str | None = None
    """A sentence-transformers model, by name or folder; by default that of the recipe."""
    prepare: PrepareOptions = PrepareOptions(custom=CustomOptions(drop_invalid=True, max_invalid=FEW))
