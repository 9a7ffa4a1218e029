"""The base class of next-item tasks: how they are validated, and what is told of their training.

Shapes: E examples.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from torch import nn

from rqrec.core.progress import log
from rqrec.data.splits import EvalExamples, Split, targets_in_history
from rqrec.evaluation.evaluate import evaluate
from rqrec.evaluation.metrics import ranking_metrics
from rqrec.models.retrieval_model import parameter_count
from rqrec.retrieval.ranking import ItemRecommender
from rqrec.training.processes import Processes
from rqrec.training.task import Task
from rqrec.training.tracking import History

LOSS_EXAMPLES = 2048  # maximum number of validation examples for the validation loss


def warn_of_unreachable_targets(validation: EvalExamples, *, exclude_seen: bool) -> None:
    """Log how many validation targets cannot be hit because they are in their history and seen items are excluded."""
    if exclude_seen and (count := targets_in_history(validation)):
        log(
            f"{count} of the {len(validation)} validation targets are in their history. While seen items are "
            f"excluded, they cannot be hit: if people take items again, set train.exclude_seen=False."
        )


def training_metrics(model: nn.Module, history: History) -> dict[str, Any]:
    """What the manifest of a model tells of its training, on all processes alike."""
    return {
        "parameters": parameter_count(model),
        "validation": max(history.validation, key=lambda record: record["ndcg@10"]),
        "stopped": history.stopped,
        "precision": history.precision,
        **Processes.join().numbers,
    }


class NextItemTask(Task):
    """Learns to predict the next item; selected on the item-level ndcg@10 of the validation split."""

    split: Split
    exclude_seen: bool = True
    """Whether validation excludes the items of the history."""
    validation_users: int | None = None
    """Maximum number of users in a validation, the same ones each time; None: all users."""
    eval_batch_size: int = 128
    """Histories per batch of a validation."""
    selects_on = "ndcg@10"
    has_validation_loss = True

    @abstractmethod
    def recommender(self) -> ItemRecommender:
        """A recommender that ranks with the current weights."""

    def validate(self) -> Mapping[str, float]:
        """Item-level metrics on the validation split; each process evaluates its share of the users."""
        processes = Processes.join()
        examples = self.validation_examples(self.validation_users)
        local = examples.strided(processes.count, processes.rank)
        if len(local):
            ranks_E = evaluate(
                self.recommender(),
                local,
                exclude_seen=self.exclude_seen,
                batch_size=self.eval_batch_size,
                description="Validating" if processes.is_first else None,
            ).ranks_C
        else:
            ranks_E = np.zeros(0, dtype=np.int64)
        return ranking_metrics(np.concatenate(gather_object([ranks_E])))

    def validation_examples(self, at_most: int | None) -> EvalExamples:
        """Every n-th validation example, for the smallest n that gives at most this many; None gives all."""
        examples = self.split.validation
        return examples if at_most is None else examples.strided(-(-len(examples) // at_most))
