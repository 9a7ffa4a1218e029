"""Training of a retrieval model on semantic IDs."""

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
from rqrec.models.architectures import AnyModel
from rqrec.models.retrieval_model import Batch, CodeLookup, RetrievalModel
from rqrec.retrieval.retriever import Retriever
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.processes import Processes
from rqrec.training.windows import Windows

LOSS_SAMPLE, LOSS_BATCH = 2048, 256  # cases of a quick look at the validation split


@dataclass
class DecoderTask:
    """Learns to generate the next item's semantic ID; selected on validation ndcg@10, item-level."""

    model: AnyModel
    table: SemanticIdTable
    split: Split
    batch_size: int
    seed: int
    moving_windows: bool = True
    beam_width: int = 10
    validation_users: int | None = None  # ranked for in a validation, at most; None: all
    selects_on: str | None = field(default="ndcg@10", init=False)
    shardable: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        longest = self.model.max_items + 1  # a full history and the item after it
        self._windows = Windows(
            self.split.train, longest, self.batch_size, self.seed, moving=self.moving_windows
        )
        self._lookup = CodeLookup.from_codes(self.table.codes_NL)

    def batch(self, number: int) -> Batch:
        """Windows of training sequences as codes."""
        return self._lookup.batch(self._windows.histories(number), self.model.max_items + 1)

    def weight(self, batch: Any) -> float:
        """Its items: each has one code a level."""
        return float(batch.lengths_B.sum())

    def loss(self, model: nn.Module, batch: Any, step: int) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Mean cross-entropy, and that of each level."""
        total, by_level_L = model(batch)
        return total, {f"loss_level_{level}": loss for level, loss in enumerate(by_level_L)}

    def on_step_end(self, step: int) -> Mapping[str, float]:
        """Nothing to keep up."""
        return {}

    @torch.no_grad()
    def validation_loss(self) -> Mapping[str, float]:
        """Cross-entropy of the codes of (a sample of) the validation items, in nats: far cheaper than ranking."""
        model: RetrievalModel[Any] = self.model
        cases = self.split.validation.every(-(-len(self.split.validation) // LOSS_SAMPLE))
        total_L = torch.zeros(len(self.model.level_sizes), dtype=torch.float64)
        for part in cases.batches(LOSS_BATCH):
            batch = self._lookup.batch(cases.histories(part), self.model.max_items).to(self._device)
            context = model.encode(batch)
            codes_BL = self._lookup.codes_NL[torch.from_numpy(cases.targets[part])].to(self._device)
            for level in range(codes_BL.shape[1]):
                log_probs_BV = model.next_level(context, codes_BL[:, None, :level])[:, 0]
                total_L[level] -= float(log_probs_BV.gather(1, codes_BL[:, level : level + 1]).sum())
        by_level = (total_L / len(cases)).tolist()
        return {
            "loss": sum(by_level) / len(by_level),
            **{f"loss_level_{level}": loss for level, loss in enumerate(by_level)},
        }

    def validate(self) -> Mapping[str, float]:
        """Item-level metrics on the validation items; every process ranks for some of the users."""
        processes = Processes.join()
        retriever = Retriever(self.model, self.table, self.beam_width, self._device)
        everyone = self.split.validation
        chosen = everyone.every(-(-len(everyone) // (self.validation_users or len(everyone))))
        mine = chosen.every(processes.count, processes.rank)
        ranks = evaluate(retriever, mine).ranks_C if len(mine) else np.zeros(0, dtype=np.int64)
        return ranking_metrics(np.concatenate(gather_object([ranks])))

    def health_warnings(self, measured: Mapping[str, float]) -> Sequence[str]:
        """None: the metrics speak."""
        return []

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device
