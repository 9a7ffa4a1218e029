"""The common base of models that change the probabilities of another retrieval model."""

from typing import Any

from torch import Tensor

from rqrec.models.retrieval_model import Batch, RetrievalModel, TrainingLoss


class WrappedModel:
    """A RetrievalModel that delegates everything to `model`; subclasses override `next_level`.

    A subclass that needs its own context for a history overrides `encode` too.
    """

    def __init__(self, model: RetrievalModel[Any]) -> None:
        self.model = model
        self.level_sizes, self.max_items = model.level_sizes, model.max_items

    def __call__(self, batch: Batch) -> TrainingLoss:
        """The loss of the wrapped model: a wrapper has nothing to train."""
        return self.model(batch)

    def encode(self, batch: Batch) -> Any:
        """Read the histories once."""
        return self.model.encode(batch)

    def next_level(self, context: Any, prefix_BKl: Tensor) -> Tensor:
        """Log-probabilities float32 [B, K, V] of the level after the prefix (see RetrievalModel)."""
        return self.model.next_level(context, prefix_BKl)
