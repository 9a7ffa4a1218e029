"""What holds wherever nothing else is asked for."""

DEFAULT_K = 10  # items of a list: recommended, similar or found
