"""Training of SASRec, the baseline that knows items by their index alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from rqrec.data.splits import Split
from rqrec.evaluation.evaluate import evaluate
from rqrec.evaluation.metrics import ranking_metrics
from rqrec.models.sasrec import SasRec
from rqrec.retrieval.ranking import ExhaustiveRecommender
from rqrec.training.processes import Processes
from rqrec.training.windows import Windows

LOSS_SAMPLE, BATCH = 2048, 512  # cases of a quick look at the validation split; of a matrix product


@dataclass
class SasRecTask:
    """Learns to predict the next item; selected on validation ndcg@10."""

    model: SasRec
    split: Split
    batch_size: int
    seed: int
    selects_on: str | None = field(default="ndcg@10", init=False)
    shardable: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        longest = self.model.config.max_items + 1  # a full history and the item after it
        self._windows = Windows(self.split.train, longest, self.batch_size, self.seed)

    def batch(self, number: int) -> Tensor:
        """Windows of training sequences, item indices int64 [B, T]."""
        return torch.from_numpy(self._windows.batch(number))

    def weight(self, batch: Any) -> float:
        """Its items."""
        return float((batch >= 0).sum())

    def loss(self, model: nn.Module, batch: Any, step: int) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Mean cross-entropy of all items."""
        return model(batch), {}

    def on_step_end(self, step: int) -> Mapping[str, float]:
        """Nothing to keep up."""
        return {}

    def validation_loss(self) -> Mapping[str, float]:
        """Cross-entropy of (a sample of) the validation items, in nats."""
        cases = self.split.validation.strided(-(-len(self.split.validation) // LOSS_SAMPLE))
        total = 0.0
        for part in cases.batches(BATCH):
            log_probs_BN = self.model.score_items(cases.histories(part)).log_softmax(1)
            total -= float(log_probs_BN[torch.arange(len(log_probs_BN)), cases.targets[part]].sum())
        return {"loss": total / len(cases)}

    def validate(self) -> Mapping[str, float]:
        """Metrics on the validation item of each user; every process ranks for some of the users."""
        processes = Processes.join()
        mine = self.split.validation.strided(processes.count, processes.rank)
        ranks = (
            evaluate(ExhaustiveRecommender(self.model), mine, batch_size=BATCH).ranks_C
            if len(mine)
            else np.zeros(0, np.int64)
        )
        return ranking_metrics(np.concatenate(gather_object([ranks])))

    def health_warnings(self, measured: Mapping[str, float]) -> Sequence[str]:
        """None: the metrics speak."""
        return []
