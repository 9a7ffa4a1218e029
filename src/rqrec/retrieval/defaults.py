"""What holds wherever nothing else is asked for."""

BEAM_WIDTH = 50  # prefixes that a search keeps
DEFAULT_K = 10  # items of a list: recommended, similar or found
