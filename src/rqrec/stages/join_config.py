"""Settings of joining models, apart from what it imports to run, so that its help is there at once."""

from dataclasses import dataclass, field

from rqrec.core.values import Config, Fraction, PositiveInt
from rqrec.retrieval.defaults import BEAM_WIDTH


@dataclass(frozen=True)
class JoinConfig(Config):
    """How experts are joined."""

    neighbours: bool = field(default=True, metadata={"flags": "--neighbours/--no-neighbours"})
    """Whether to mix in the neighbours of the history's items, by who took what and, with embeddings, by content."""
    beam_width: PositiveInt = BEAM_WIDTH
    """Prefixes that a beam search keeps while the weights are chosen."""
    validation_users: PositiveInt | None = None
    """Choose the weights on at most this many users; None: on all."""
    new_item_cost: Fraction = 0.015
    """Share of their recall@10 that known items may lose to items that are added later: the higher, the more often
    these are recommended."""
