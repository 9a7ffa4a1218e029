"""Stops commands before each change of a file that they make, each time in a folder of its own.

With "two_at_once" a command is held there while the same command runs beside it.

    python -m tests.faults.every_change killed --most 40 [COMMAND ...]

prints what came of it; with --most, of so many changes of a command, evenly spread. All of them take hours, so the
table of docs/reliability.md has a few of these moments.
"""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path

from tests.faults.cells import (
    KILL,
    TAKES,
    TERMINATE,
    Cell,
    commands,
    second_at_change,
    stop_at_change,
    tried,
    write_base,
)


def killed(cell: Cell, change: int) -> str:
    stop_at_change(cell, change, *KILL)
    return cell.same_result()


def terminated(cell: Cell, change: int) -> str:
    stop_at_change(cell, change, *TERMINATE)
    return cell.same_result()


FAULTS = {"killed": killed, "terminated": terminated, "two_at_once": second_at_change}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fault", choices=FAULTS)
    parser.add_argument("commands", nargs="*", help="by default all")
    parser.add_argument("--most", type=int, default=10**6, help="changes of a command")
    options = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_base(base)
        takes = json.loads((base / TAKES).read_text())
        for name in options.commands or commands(base, base):
            count = takes[name]["changes"]
            tries = min(count, options.most)
            for change in (number * count // tries for number in range(tries)):
                result = tried(name, base, partial(FAULTS[options.fault], change=change))
                print(f"{name} {change}/{count}: {result}", flush=True)


if __name__ == "__main__":
    main()
