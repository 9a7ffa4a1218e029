"""Logs of a run: `metrics.jsonl`, TensorBoard and, optionally, Weights & Biases."""

import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rqrec.core.artifact import atomic_write
from rqrec.core.errors import first_line

METRICS_FILE = "metrics.jsonl"
OFFLINE_MODES = ("offline", "disabled", "dryrun")
SPLITS = ("training", "partial", "validation")


@dataclass
class History:
    """The records of a run. Each has its "step", the number of optimizer steps so far."""

    training: list[dict[str, float]] = field(default_factory=list)
    """The training loss and its parts."""
    partial: list[dict[str, float]] = field(default_factory=list)
    """The validation loss, computed between full validations."""
    validation: list[dict[str, float]] = field(default_factory=list)
    """The metrics of full validations."""
    stopped: str | None = field(default=None, compare=False)
    """One sentence on why training ended before its last step; None if it did not."""
    precision: str = field(default="no", compare=False)
    """The precision of the training: "no" for fp32, "bf16" or "fp16"."""

    @classmethod
    def read(cls, folder: Path, selects_on: str | None = None) -> "History":
        """Read a run's `metrics.jsonl`. Raises ValueError naming the file if it is damaged.

        `selects_on`: a metric that every full validation has.
        """
        history = cls()
        records = {split: getattr(history, split) for split in SPLITS}
        needed = {"training": "loss", "partial": "step", "validation": selects_on or "step"}
        try:
            for line in (folder / METRICS_FILE).read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                split = record.pop("split")
                for name in (needed[split], *record):
                    if not isinstance(record[name], int | float):
                        raise ValueError(f"{name} is not a number")
                int(record["step"])
                records[split].append(record)
        except (ValueError, ArithmeticError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{folder / METRICS_FILE} is damaged ({error!r}).") from error
        return history

    def write(self, folder: Path) -> None:
        """Write `metrics.jsonl`: one JSON object per line, with its step and split, ordered by step."""
        with atomic_write(folder / METRICS_FILE) as file:
            for line in self._lines():
                file.write(line.encode())

    def _lines(self) -> list[str]:
        # The sort is stable: within a step the training record comes first, as when it was logged.
        rows = [(record["step"], _line(split, record)) for split in SPLITS for record in getattr(self, split)]
        return [line for _, line in sorted(rows, key=lambda row: row[0])]


class Tracker:
    """Appends each record to the history and to every log in `folder`; with None, to the history only.

    A resumed run passes the history of its checkpoint: records that the interrupted run logged after that checkpoint
    are dropped from the files, and logged again.
    """

    def __init__(
        self, folder: Path | None, history: History, *, wandb: bool = False, settings: Mapping[str, Any]
    ) -> None:
        self.history = history
        self._file = self._events = self._wandb = None
        if folder is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        history.write(folder)
        self._file = (folder / METRICS_FILE).open(
            "a", encoding="utf-8", buffering=1
        )  # flushed after each line
        last = max((r["step"] for split in SPLITS for r in getattr(history, split)), default=0)
        self._events = SummaryWriter(str(folder), purge_step=int(last) + 1)
        if wandb:
            self._wandb = _start_wandb(folder, settings)

    def record(self, split: str, record: dict[str, float]) -> None:
        """Log a record, which includes its "step", under one of SPLITS."""
        getattr(self.history, split).append(record)
        values = {f"{split}/{name}": value for name, value in record.items() if name != "step"}
        if self._file is not None:
            self._file.write(_line(split, record))
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, int(record["step"]))
        if self._wandb is not None:
            self._wandb.log(values, step=int(record["step"]))

    def close(self) -> None:
        """Flush and close all logs."""
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish()


def check_wandb() -> None:
    """Raise ValueError if Weights & Biases cannot log: the package or the login is missing. Never asks for a key."""
    if importlib.util.find_spec("wandb") is None:
        raise ValueError(
            'train.wandb_logging=True needs the package wandb: install it with `pip install "rqrec[wandb]"`, '
            "or set train.wandb_logging=False (TensorBoard and metrics.jsonl are always written)."
        )
    import wandb

    try:
        offline = wandb.setup().settings.mode in OFFLINE_MODES
        ready = offline or wandb.login(prompt=False, verify=False)
        reason = "is not logged in here"
    except (wandb.Error, ValueError) as error:  # a malformed key, an unknown mode
        ready, reason = False, f"refuses its settings ({first_line(error)})"
    if not ready:
        raise ValueError(
            f"train.wandb_logging=True, but wandb {reason}: run `wandb login`, set WANDB_API_KEY, set "
            "WANDB_MODE=offline to log without a network, or set train.wandb_logging=False."
        )


def _start_wandb(folder: Path, settings: Mapping[str, Any]) -> Any:
    """Start the run of this folder, or continue it. Raises ConnectionError if the service does not answer."""
    import wandb

    try:
        # One id per folder, so that a resumed run continues the same run there.
        return wandb.init(dir=str(folder), id=_run_id(folder), resume="allow", config=dict(settings))
    except wandb.Error as error:
        raise ConnectionError(
            f"Weights & Biases did not start a run ({first_line(error)}). Check the network and the login, or set "
            "WANDB_MODE=offline or train.wandb_logging=False."
        ) from error


def _run_id(folder: Path) -> str:
    """The id of the run in this folder: drawn at random once, then read from `wandb_id.txt`."""
    path = folder / "wandb_id.txt"
    if not path.is_file():
        with atomic_write(path) as file:
            file.write(os.urandom(8).hex().encode())
    return path.read_text(encoding="utf-8")


def _line(split: str, record: Mapping[str, float]) -> str:
    return json.dumps({"split": split, **record}) + "\n"
