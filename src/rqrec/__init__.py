"""rqrec: generative retrieval with semantic IDs."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "RqVae": "rqrec.tokenizer.rqvae",
    "Recommender": "rqrec.serving.recommender",
}

__all__ = ["Recommender", "RqVae", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the public classes at first use, so that `import rqrec` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rqrec' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
