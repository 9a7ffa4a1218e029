"""Training of SASRec, the baseline with one learned vector per item.

Shapes: B batch, T items, N items of the catalogue.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rqrec.data.splits import Split
from rqrec.models.sasrec import SasRec
from rqrec.retrieval.ranking import ExhaustiveRecommender, ItemRecommender
from rqrec.training.next_item_task import LOSS_EXAMPLES, NextItemTask
from rqrec.training.run_progress import RunProgress
from rqrec.training.windows import Windows


@dataclass
class SasRecTask(NextItemTask):
    """Learns to predict the index of the next item."""

    model: SasRec
    split: Split
    batch_size: int
    seed: int
    exclude_seen: bool = True

    eval_batch_size = 512

    def __post_init__(self) -> None:
        longest = self.model.config.max_items + 1  # a full history and the item after it
        self._windows = Windows(self.split.train, longest, self.batch_size, self.seed)

    def batch(self, number: int) -> Tensor:
        """Windows of training sequences, item indices int64 [B, T]."""
        return torch.from_numpy(self._windows.batch(number))

    def weight(self, batch: Any) -> float:
        """The number of items."""
        return float((batch >= 0).sum())

    def loss(
        self, model: nn.Module, batch: Any, progress: RunProgress
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Mean cross-entropy of all items."""
        return model(batch), {}

    def recommender(self) -> ItemRecommender:
        """Ranks the whole catalogue by the scores of the current weights."""
        return ExhaustiveRecommender(self.model)

    def validation_loss(self) -> Mapping[str, float]:
        """Cross-entropy of the validation items, in nats, on a sample of at most `LOSS_EXAMPLES`."""
        examples = self.validation_examples(LOSS_EXAMPLES)
        total = 0.0
        for rows in examples.batches(self.eval_batch_size):
            log_probs_BN = self.model.score_items(examples.histories(rows)).log_softmax(1)
            total -= float(log_probs_BN[torch.arange(len(log_probs_BN)), examples.targets[rows]].sum())
        return {"loss": total / len(examples)}
