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
from rqrec.training.prefixes import Prefixes
from rqrec.training.run_progress import RunProgress


@dataclass
class SasRecTask(NextItemTask):
    """Learns to predict the index of the next item."""

    model: SasRec
    split: Split
    batch_size: int
    seed: int
    exclude_seen: bool = True
    validation_users: int | None = None

    eval_batch_size = 512

    def __post_init__(self) -> None:
        self._prefixes = Prefixes(self.split.train, self.model.config.max_items, self.batch_size, self.seed)

    def batch(self, number: int) -> Tensor:
        """Histories with their next item, item indices int64 [B, T]."""
        return torch.from_numpy(self._prefixes.batch(number))

    def weight(self, batch: Any) -> float:
        """The number of targets: one for each row."""
        return float(len(batch))

    def loss(
        self, model: nn.Module, batch: Any, progress: RunProgress
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Mean cross-entropy of the targets."""
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
