"""The smallest task, for tests of the loop, and checkpoints for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rqrec.training.checkpoint import CheckpointConfig, CheckpointManager
from rqrec.training.run_progress import RunProgress
from rqrec.training.task import Task


class Line(Task):
    """Fits y = 3x; its validations return the given scores in turn."""

    shardable = False

    def __init__(self, scores: list[float] | None = None) -> None:
        self.model: nn.Module = nn.Linear(1, 1)
        self.selects_on = "score" if scores else None
        self.scores, self.weights = list(scores or []), list[float]()
        self.steps: list[int] = []

    def batch(self, number: int) -> Tensor:
        self.steps.append(number)
        return torch.randn(8, 1, generator=torch.Generator().manual_seed(number))

    def weight(self, batch: Tensor) -> float:
        return len(batch)

    def loss(
        self, model: nn.Module, batch: Tensor, progress: RunProgress
    ) -> tuple[Tensor, Mapping[str, float]]:
        return (model(batch) - 3 * batch).square().mean(), {"batch_mean": batch.mean().item()}

    def validate(self) -> Mapping[str, float]:
        assert not self.model.training
        self.weights.append(self.model.weight.item())
        return {"score": self.scores.pop(0)} if self.scores else {}


def manager(
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
    **config: Any,
) -> CheckpointManager:
    """A manager of checkpoints in a folder."""
    return CheckpointManager(CheckpointConfig(folder, **config), settings or {}, inputs or {})
