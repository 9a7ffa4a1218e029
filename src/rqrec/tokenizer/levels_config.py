"""What the settings of every tokenizer have in common: how many codes each of its levels has."""

from rqrec.core.values import Config


class LevelsConfig(Config):
    """Base of a tokenizer's settings. Raises ValueError if there are not as many sizes as levels."""

    codebook_size: int | tuple[int, ...]
    n_layers: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.codebook_sizes) != self.n_layers:
            raise ValueError(
                f"codebook_size has {len(self.codebook_sizes)} values for n_layers={self.n_layers} levels: "
                f"give one value for all levels, or one per level."
            )

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Number of codes of each level, L values."""
        if isinstance(self.codebook_size, int):
            return (self.codebook_size,) * self.n_layers
        return self.codebook_size
