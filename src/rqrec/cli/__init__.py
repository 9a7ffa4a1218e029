"""The command line: every stage, and the demo that runs them all."""

from rqrec.cli import (  # noqa: F401  # each registers its commands
    batch,
    bench,
    compare,
    data,
    demo,
    evaluation,
    hub,
    reproduce,
    retrieval,
    serving,
    tokenizer,
)
from rqrec.cli.app import app


def main() -> None:
    """Run the command line."""
    app()
