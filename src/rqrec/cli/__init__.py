"""The command line: every stage, and the demo that runs them all."""

from rqrec.cli import bench, data, demo, retrieval, tokenizer  # noqa: F401  # each registers its commands
from rqrec.cli.app import app


def main() -> None:
    """Run the command line."""
    app()
