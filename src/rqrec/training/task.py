"""What the training loop trains."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn


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
        """The number of terms that the loss of a batch averages over."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any, step: int) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The loss to minimise, a mean over the batch, and its components to log."""

    @abstractmethod
    def validate(self) -> Mapping[str, float]:
        """Metrics on the validation split. The model is in evaluation mode."""

    def validation_loss(self) -> Mapping[str, float]:
        """The loss on the validation split, much cheaper than `validate`. The model is in evaluation mode."""
        raise NotImplementedError

    def on_step_end(self, step: int) -> Mapping[str, float]:
        """Called after each optimizer step, must be deterministic given the step; returns values to log."""
        return {}

    def health_warnings(self, metrics: Mapping[str, float]) -> Sequence[str]:
        """Problems indicated by the metrics of `validate`, one sentence each."""
        return []
