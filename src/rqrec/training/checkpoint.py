"""Checkpoints of an unfinished run: everything needed to resume it, in folders that are either complete or absent.

The states of random generators are not saved: every random choice is drawn from the seed and the step (see
`rqrec.training.loop`).
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import safetensors.torch
from torch import Tensor

from rqrec.core.artifact import (
    DifferentArtifactError,
    atomic_write,
    create,
    differences,
    read_json,
    read_manifest,
    reuse,
    write_json,
)
from rqrec.core.lock import only_one
from rqrec.core.progress import log
from rqrec.core.replace import heal_inside, remove
from rqrec.core.tensors import read_tensors
from rqrec.core.values import Config, NonNegativeInt, PositiveInt
from rqrec.training.tracking import History

ARTIFACT_TYPE = "checkpoint"
TENSORS_FILE, VALUES_FILE = "state.safetensors", "state.json"


class TrainingState(NamedTuple):
    """The state of a run after an optimizer step."""

    step: int
    """Number of optimizer steps so far."""
    tensors: dict[str, Tensor]
    """Weights, optimizer state and averages, by name."""
    values: dict[str, Any]
    """Everything else, as JSON values."""
    history: History
    """The records logged so far."""


@dataclass(frozen=True)
class CheckpointConfig(Config):
    """Where an unfinished run is saved, how often, and whether it is resumed."""

    save_dir_root: Path
    """Folder of the run: checkpoints go to its `checkpoints`, logs to its `logs`."""
    save_model_every: NonNegativeInt = 1000
    """Number of steps between checkpoints; 0 saves on Ctrl-C only."""
    keep_last: PositiveInt = 2
    """Number of checkpoints to keep; older ones are removed."""
    resume: Literal["auto", "never"] = "auto"
    """"auto" resumes from the newest checkpoint, "never" removes the checkpoints and starts from scratch."""
    wandb_logging: bool = False
    """Whether to log to Weights & Biases too."""

    @property
    def from_scratch(self) -> bool:
        """Whether earlier checkpoints are removed instead of resumed from."""
        return self.resume == "never"


@dataclass(frozen=True)
class CheckpointManager:
    """Saves and loads the checkpoints of one run; refuses those of a run with other settings or inputs."""

    config: CheckpointConfig
    settings: Mapping[str, Any]
    """The settings of the run, as JSON values."""
    inputs: Mapping[str, str]
    """The hash of each input artefact, by type."""

    def locked(self) -> AbstractContextManager[None]:
        """Keep other trainings out of the run's folder. Raises ValueError if there is one already."""
        return only_one(self.config.save_dir_root, "training", "choose another train.save_dir_root")

    def finished(self, out: Path, artifact_type: str) -> bool:
        """Whether the run is already finished and its artefact in `out` can be reused (see `reuse`)."""
        return reuse(
            out,
            artifact_type,
            self.settings,
            self.inputs,
            force=self.config.from_scratch,
            how_to_replace="train.resume='never'",
        )

    @contextmanager
    def finish(self, out: Path, artifact_type: str, metrics: dict[str, Any]) -> Iterator[Path]:
        """Yield a folder to write the run's artefact to; then remove the checkpoints."""
        with create(
            out, artifact_type, settings=self.settings, inputs=self.inputs, metrics=metrics
        ) as target:
            yield target
        self.clear()

    @property
    def folder(self) -> Path:
        """The folder of the checkpoints."""
        return self.config.save_dir_root / "checkpoints"

    @property
    def logs(self) -> Path:
        """The folder of `metrics.jsonl` and the TensorBoard events."""
        return self.config.save_dir_root / "logs"

    def save(self, state: TrainingState) -> Path:
        """Write a checkpoint, then remove the older ones beyond `keep_last`. On an OSError they stay intact."""
        folder = self.folder / f"step-{state.step:09d}"
        with create(folder, ARTIFACT_TYPE, settings=self.settings, inputs=self.inputs) as target:
            with atomic_write(target / TENSORS_FILE) as file:
                tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
                file.write(safetensors.torch.save(tensors))
            write_json(target / VALUES_FILE, {"step": state.step, **state.values})
            state.history.write(target)
        # A later checkpoint than this one could not be read: keep it, but do not count it.
        earlier = [saved for saved in self._saved() if saved.name <= folder.name]
        for old in earlier[self.config.keep_last :]:
            remove(old)
        return folder

    def load(self, selects_on: str | None = None) -> TrainingState | None:
        """The newest intact checkpoint, or None if there is none or if `resume` is "never".

        `selects_on`: a metric that every full validation has.

        A damaged checkpoint is skipped with a warning. Raises ValueError, naming the differences, if the
        checkpoint belongs to a run with other settings or inputs.
        """
        if self.config.from_scratch:
            self.clear()
            return None
        heal_inside(self.folder)
        for folder in self._saved():
            try:
                manifest = read_manifest(folder, ARTIFACT_TYPE, verify=True)
            except (ValueError, FileNotFoundError) as error:
                log(f"This checkpoint is skipped: {error}")
                continue
            self._check_same_run(folder, manifest.settings, manifest.inputs)
            try:
                return _read_state(folder, selects_on)
            except ValueError as error:
                log(f"This checkpoint is skipped: {error}")
        if self._saved():
            log("No checkpoint can be read: training starts from scratch.")
        return None

    def newest(self) -> Path | None:
        """The folder of the newest checkpoint, or None if there is none."""
        return next(iter(self._saved()), None)

    def clear(self) -> None:
        """Remove all checkpoints, for example once the artefact of the finished run is written."""
        remove(self.folder)

    def _saved(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)

    def _check_same_run(self, folder: Path, settings: dict[str, Any], inputs: dict[str, str]) -> None:
        differing = differences(
            {"settings": settings, "inputs": inputs}, {"settings": self.settings, "inputs": self.inputs}
        )
        if differing:
            raise DifferentArtifactError(
                f"{folder} belongs to an unfinished run with other settings or inputs: {'; '.join(differing)}.",
                "Restore them to resume it, set train.resume='never' to start from scratch, or choose another "
                "train.save_dir_root.",
            )


def _read_state(folder: Path, selects_on: str | None) -> TrainingState:
    """The state in a checkpoint's folder. Raises ValueError naming the file that is damaged."""
    tensors, values = read_tensors(folder / TENSORS_FILE), read_json(folder / VALUES_FILE)
    step = values.pop("step", None) if isinstance(values, dict) else None
    if type(step) is not int or step < 0:
        raise ValueError(f"{folder / VALUES_FILE} has no valid step, but {step!r}.")
    return TrainingState(step, tensors, values, History.read(folder, selects_on))
