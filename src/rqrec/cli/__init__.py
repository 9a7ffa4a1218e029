"""The command line: one file per command (push and pull share one, and so do the two cold-start commands).

A command's file is imported when the command is asked for, and imports at its top no more than its options need.
"""

import sys
from typing import Any

# What people do, and the commands for it, each with its file.
GROUPS = {
    "Start here": {"quickstart": "quickstart", "demo": "demo"},
    "Prepare data": {"prepare": "prepare", "embed": "embed"},
    "Make semantic IDs": {
        "fit-rqkmeans": "fit_rqkmeans",
        "train-rqvae": "train_rqvae",
        "tokenize": "tokenize",
        "inspect-ids": "inspect_ids",
        "run-rqvae": "run_rqvae",
    },
    "Train": {"train-decoder": "train_decoder", "train-sasrec": "train_sasrec", "join": "join"},
    "Evaluate": {"evaluate": "evaluate", "hold-out-items": "cold_start", "evaluate-cold": "cold_start"},
    "Recommend and serve": {
        "recommend": "recommend",
        "batch-recommend": "batch_recommend",
        "serve": "serve",
        "export": "export",
        "push": "share",
        "pull": "share",
    },
    "Find and change items": {"items": "items"},
    "Experiment": {"reproduce": "reproduce", "compare": "compare", "bench": "bench", "settings": "settings"},
}
COMMANDS = {name: module for group in GROUPS.values() for name, module in group.items()}


def main(arguments: list[str] | None = None, name: str = "rqrec") -> None:
    """Run the command line."""
    from rqrec.cli.command import app
    from rqrec.cli.ending import run_or_exit

    run_or_exit(lambda: app(sys.argv[1:] if arguments is None else arguments, prog_name=name))


def __getattr__(name: str) -> Any:
    """`app`: the Typer application."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rqrec.cli.command import app

    return app
