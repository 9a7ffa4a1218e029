"""Stops commands before each change of a file that they make, each time in a folder of its own.

    python -m tests.faults.every_change killed --most 40 [COMMAND ...]

prints what came of it; with --most, of so many changes of a command, evenly spread. All of them take hours, so the
table of docs/reliability.md has a few of these moments.
"""

import argparse
import json
import signal
import tempfile
from pathlib import Path

from tests.faults.cells import KILL, TAKES, TERMINATE, Cell, commands, stop_at_change, tried, write_base


def main() -> None:
    faults = {"killed": KILL, "terminated": TERMINATE}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fault", choices=faults)
    parser.add_argument("commands", nargs="*", help="by default all")
    parser.add_argument("--most", type=int, default=10**6, help="changes of a command")
    options = parser.parse_intermixed_args()
    fault, *statuses = faults[options.fault]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_base(base)
        takes = json.loads((base / TAKES).read_text())
        for name in options.commands or commands(base, base):
            count = takes[name]["changes"]
            tries = min(count, options.most)
            for change in (number * count // tries for number in range(tries)):

                def stopped(cell: Cell, change: int = change) -> str:
                    stop_at_change(cell, change, signal.Signals(fault), *statuses)
                    return cell.same_result()

                print(f"{name} {change}/{count}: {tried(name, base, stopped)}", flush=True)


if __name__ == "__main__":
    main()
