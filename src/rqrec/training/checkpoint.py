"""Checkpoints of an unfinished run: all that going on needs, in folders that are whole or not there.

Random choices need no place in them: each is drawn from the seed and the step (see `rqrec.training.loop`).
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from torch import Tensor

from rqrec.core.artifact import atomic_write, create, differences, read_json, read_manifest, write_json
from rqrec.core.progress import log
from rqrec.training.tracking import History

KIND = "checkpoint"
TENSORS_FILE, VALUES_FILE = "state.safetensors", "state.json"


class State(NamedTuple):
    """A run after `step` optimizer steps: its tensors by name, JSON values, and what it logged."""

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]
    history: History


@dataclass(frozen=True)
class CheckpointManager:
    """Where an unfinished run is kept, and how.

    folder: of the run; checkpoints go to `folder/checkpoints`, logs to `folder/logs`
    save_every: steps between checkpoints; 0 saves on Ctrl-C alone
    keep_last: how many checkpoints stay, the newest
    resume: "auto" goes on from the newest one, "never" removes them and starts anew
    settings, inputs: what the run is made with and from; a checkpoint of another run is refused
    wandb: log to Weights & Biases too
    """

    folder: Path
    save_every: int = 1000
    keep_last: int = 2
    resume: str = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    wandb: bool = False

    def __post_init__(self) -> None:
        if self.resume not in ("auto", "never"):
            raise ValueError(f"train.resume is {self.resume!r}; allowed are 'auto' and 'never'.")
        if self.save_every < 0:
            raise ValueError(f"train.save_model_every is {self.save_every}; 0 is never, else count steps.")
        if self.keep_last < 1:
            raise ValueError(f"train.keep_last is {self.keep_last}; at least 1 checkpoint must stay.")

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def logs(self) -> Path:
        """The folder of `metrics.jsonl` and the TensorBoard events."""
        return self.folder / "logs"

    def save(self, state: State) -> Path:
        """Write a checkpoint, then remove those that are too old; an OSError leaves the older ones whole."""
        folder = self.checkpoints / f"step-{state.step:09d}"
        with create(folder, KIND, settings=self.settings, inputs=self.inputs) as target:
            with atomic_write(target / TENSORS_FILE) as file:
                tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
                file.write(safetensors.torch.save(tensors))
            write_json(target / VALUES_FILE, {"step": state.step, **state.values})
            state.history.write(target)
        for old in self._saved()[self.keep_last :]:
            shutil.rmtree(old)
        return folder

    def load(self) -> State | None:
        """The newest whole checkpoint; None where there is none, or where `resume` is "never".

        A damaged one is told and passed over. Raises ValueError where it was made with other settings or
        inputs, naming them.
        """
        if self.resume == "never":
            self.clear()
            return None
        for left in self.checkpoints.glob(".step-*"):  # of runs that were killed while they wrote
            shutil.rmtree(left)
        for folder in self._saved():
            try:
                manifest = read_manifest(folder, KIND, verify=True)
            except (ValueError, FileNotFoundError) as error:
                log(f"{error} Going on from the checkpoint before it.")
                continue
            self._refuse_others(folder, manifest.settings, manifest.inputs)
            values = read_json(folder / VALUES_FILE)
            tensors = safetensors.torch.load_file(folder / TENSORS_FILE)
            return State(values.pop("step"), tensors, values, History.read(folder))
        return None

    def newest(self) -> Path | None:
        """The folder of the newest checkpoint, None where there is none."""
        return next(iter(self._saved()), None)

    def clear(self) -> None:
        """Remove the checkpoints, as when the run is finished and its artefact written."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def _saved(self) -> list[Path]:
        return sorted(self.checkpoints.glob("step-*"), reverse=True)

    def _refuse_others(self, folder: Path, settings: dict[str, Any], inputs: dict[str, str]) -> None:
        differing = differences(
            {"settings": settings, "inputs": inputs}, {"settings": self.settings, "inputs": self.inputs}
        )
        if differing:
            raise ValueError(
                f"{folder} is of an unfinished run with other settings or inputs: {'; '.join(differing)}. "
                f"Give it those again to resume, set train.resume='never' to start anew, or choose another "
                f"train.save_dir_root."
            )
