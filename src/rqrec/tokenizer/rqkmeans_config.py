"""Settings of RQ-k-means, apart from what it imports to run, so that the help of its command is there at once."""

from dataclasses import dataclass
from typing import Annotated

from rqrec.core.values import CodebookSize, Depth, PositiveInt, Range
from rqrec.tokenizer.levels_config import LevelsConfig


@dataclass(frozen=True)
class RqKMeansConfig(LevelsConfig):
    """Settings of an RQ-k-means tokenizer. Raises ValueError on values out of range or contradictory."""

    input_dim: PositiveInt
    """Dimensions of an item embedding."""
    codebook_size: CodebookSize | tuple[CodebookSize, ...] = 256
    """Codes per level: one number for all levels, or one per level."""
    n_layers: Depth = 3
    """Number of levels: codes per item, without the deduplication code."""
    balance: Annotated[float, Range(1)] | None = None
    """Maximum items per code, as a multiple of items / codes; None: no limit. Duplicates may exceed it slightly."""
    whiten_dim: PositiveInt | None = None
    """Cluster in this many whitened principal components; None: no whitening. Fewer collisions, larger error."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.whiten_dim is not None and self.whiten_dim > self.input_dim:
            raise ValueError(
                f"whiten_dim is {self.whiten_dim}, but must be at most input_dim = {self.input_dim}, or None."
            )
