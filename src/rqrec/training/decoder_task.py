"""Training of a retrieval model on semantic IDs.

Shapes: B batch, L levels, N items of the catalogue.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rqrec.data.splits import Split
from rqrec.models.architectures import AnyModel
from rqrec.models.retrieval_model import Batch, CodeLookup, RetrievalModel
from rqrec.retrieval.defaults import BEAM_WIDTH
from rqrec.retrieval.ranking import ItemRecommender
from rqrec.retrieval.retriever import Retriever
from rqrec.retrieval.scoring import code_log_probs
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.tokenizer.trie import Trie
from rqrec.training.next_item_task import LOSS_EXAMPLES, NextItemTask
from rqrec.training.run_progress import RunProgress
from rqrec.training.windows import Windows

LOSS_BATCH = 256  # examples per batch of the validation loss


@dataclass
class DecoderTask(NextItemTask):
    """Learns to generate the semantic ID of the next item."""

    model: AnyModel
    table: SemanticIdTable
    split: Split
    batch_size: int
    seed: int
    moving_windows: bool = True
    beam_width: int = BEAM_WIDTH
    exclude_seen: bool = True
    validation_users: int | None = None

    def __post_init__(self) -> None:
        longest = self.model.max_items + 1  # a full history and the item after it
        self._windows = Windows(
            self.split.train,
            longest,
            self.batch_size,
            self.seed,
            moving=self.moving_windows,
            random_ends=self.model.learns_last_item_only,
        )
        self._lookup = CodeLookup.from_codes(self.table.codes_NL)

    def batch(self, number: int) -> Batch:
        """Windows of training sequences as codes."""
        return self._lookup.batch(self._windows.histories(number), self.model.max_items + 1)

    def weight(self, batch: Any) -> float:
        """The number of target items: each has one code per level."""
        return float(len(batch.lengths_B) if self.model.learns_last_item_only else batch.lengths_B.sum())

    def loss(
        self, model: nn.Module, batch: Any, progress: RunProgress
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Mean cross-entropy, and the cross-entropy of each level."""
        total, by_level_L = model(batch, self.trie)
        return total, {f"loss_level_{level}": loss for level, loss in enumerate(by_level_L)}

    def recommender(self) -> ItemRecommender:
        """Beam search with the current weights."""
        return Retriever(self.model, self.table, self.beam_width, self._device)

    @torch.no_grad()
    def validation_loss(self) -> Mapping[str, float]:
        """Cross-entropy of the validation items' codes, in nats, on a sample of at most `LOSS_EXAMPLES`."""
        model: RetrievalModel[Any] = self.model
        examples = self.validation_examples(LOSS_EXAMPLES)
        total_L = torch.zeros(len(self.model.level_sizes), dtype=torch.float64)
        for rows in examples.batches(LOSS_BATCH):
            batch = self._lookup.batch(examples.histories(rows), self.model.max_items).to(self._device)
            items_B1 = torch.from_numpy(examples.targets[rows])[:, None].to(self._device)
            total_L -= code_log_probs(model, model.encode(batch), self.trie, items_B1).sum((0, 1)).cpu()
        by_level = (total_L / len(examples)).tolist()
        return {
            "loss": sum(by_level) / len(by_level),
            **{f"loss_level_{level}": loss for level, loss in enumerate(by_level)},
        }

    @cached_property
    def trie(self) -> Trie:
        """All items, on the model's device: built on first use, when the model has been moved there."""
        return Trie.build(self.table.codes_NL, self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device
