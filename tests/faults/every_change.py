"""Stops commands before each change of a file that they make, each time in a folder of its own.

    python -m tests.faults.every_change killed [COMMAND ...]

prints what came of it. That takes hours; the table of docs/reliability.md has some of these moments.
"""

import json
import signal
import sys
import tempfile
from pathlib import Path

from tests.faults.cells import KILL, TAKES, TERMINATE, Cell, commands, stop_at_change, tried, write_base


def main(fault: str, *chosen: str) -> None:
    number, *statuses = {"killed": KILL, "terminated": TERMINATE}[fault]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_base(base)
        takes = json.loads((base / TAKES).read_text())
        for name in chosen or commands(base, base):
            for change in range(takes[name]["changes"]):

                def stopped(cell: Cell, change: int = change) -> str:
                    stop_at_change(cell, change, signal.Signals(number), *statuses)
                    return cell.same_result()

                print(f"{name} {change}/{takes[name]['changes']}: {tried(name, base, stopped)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
