"""What the training loop trains."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from rqrec.training.run_progress import RunProgress


class Task(ABC):
    """What the loop trains: a model with its batches, loss and validation. Each model has a subclass."""

    model: Any
    """The nn.Module to train, in place."""
    selects_on: str | None = None
    """The validation metric whose highest value marks the best weights; None keeps the last weights."""
    shardable: bool = True
    """Whether FSDP may shard the weights; False if `on_step_end` changes them."""
    has_validation_loss: bool = False
    """Whether `validation_loss` is defined, so that `partial_eval_every` may be set."""

    @abstractmethod
    def batch(self, number: int) -> Any:
        """Batch `number`: a tensor or a tuple of tensors with one row per example. Must be deterministic."""

    @abstractmethod
    def weight(self, batch: Any) -> float:
        """The number of terms that the loss of a batch averages over, known before the loss is computed."""

    @abstractmethod
    def loss(
        self, model: nn.Module, batch: Any, progress: RunProgress
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The loss to minimise, and its components to log.

        Each is a mean over `weight(batch)` terms, so that the loss of a batch is the weighted mean of the losses of
        its parts: gradients are accumulated and reduced over processes as such.
        """

    @abstractmethod
    def validate(self) -> Mapping[str, float]:
        """Metrics on the validation split. The model is in evaluation mode."""

    def validation_loss(self) -> Mapping[str, float]:
        """The loss on the validation split, much cheaper than `validate`. The model is in evaluation mode."""
        raise NotImplementedError

    def on_step_end(self, progress: RunProgress) -> Mapping[str, float]:
        """Called after each optimizer step, must be deterministic given the progress; returns values to log."""
        return {}

    def health_warnings(self, metrics: Mapping[str, float]) -> Sequence[str]:
        """Problems indicated by the metrics of `validate`, one sentence each."""
        return []
