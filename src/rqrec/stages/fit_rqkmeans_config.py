"""Settings of fitting RQ-k-means, apart from what it imports to run, so that its help is there at once."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rqrec.core.config import check_fields_of
from rqrec.core.device import AUTO
from rqrec.core.values import Config, NonNegativeInt
from rqrec.tokenizer.rqkmeans_config import RqKMeansConfig


@dataclass(frozen=True)
class FitRqKMeansConfig(Config):
    """How RQ-k-means is fitted."""

    rqkmeans: Mapping[str, Any] = field(
        default_factory=dict,
        metadata={"fields_of": RqKMeansConfig, "without": ("input_dim",), "names": {"n_layers": "levels"}},
    )
    """Fields of RqKMeansConfig."""
    items_per_code: NonNegativeInt = 0
    """Limit the codebook sizes so that there are at least this many items per code on average; 0: no limit."""
    seed: NonNegativeInt = 0
    """Seed of the k-means initialisation."""
    device: str = AUTO
    """Where distances are computed: cpu, cuda or cuda:1; auto is a GPU if there is one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields_of(self, "rqkmeans", RqKMeansConfig, input_dim=sys.maxsize)
