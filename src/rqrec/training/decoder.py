"""Training of a retrieval model on semantic IDs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rqrec.artifact import create, find, read_manifest
from rqrec.data.dataset import Dataset
from rqrec.data.splits import Split, leave_one_out
from rqrec.evaluation.evaluate import evaluate
from rqrec.retrieval.architectures import AnyModel, build_model, name_of
from rqrec.retrieval.checkpoint import Checkpoint, write_checkpoint
from rqrec.retrieval.model import Batch, ModelConfig, parameter_count
from rqrec.retrieval.retriever import Retriever
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.loop import LoopSettings, fit
from rqrec.training.windows import Windows


@dataclass
class DecoderTask:
    """Learns to generate the next item's semantic ID; selected on validation ndcg@10, item-level."""

    model: AnyModel
    table: SemanticIdTable
    split: Split
    batch_size: int
    seed: int
    beam_width: int = 10
    selects_on: str | None = field(default="ndcg@10", init=False)

    def __post_init__(self) -> None:
        self._windows = Windows(self.split.train, self.model.max_items + 1, self.batch_size, self.seed)
        self._retriever = Retriever(self.model, self.table, self.beam_width)

    def batch(self, step: int) -> Batch:
        """Windows of training sequences as codes: a full history and the item after it."""
        return self._retriever.lookup.batch(self._windows.batch(step), self.model.max_items + 1)

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Mean cross-entropy, and that of each level."""
        total, by_level_L = model(batch)
        return total, {f"loss_level_{level}": loss for level, loss in enumerate(by_level_L)}

    def after_step(self, step: int) -> Mapping[str, float]:
        """Nothing to keep up."""
        return {}

    def validate(self, step: int) -> Mapping[str, float]:
        """Item-level metrics on the validation item of each user."""
        return evaluate(self._retriever, self.split.validation).metrics


def train_decoder(
    dataset_folder: Path,
    table_folder: Path,
    folder: Path,
    config: ModelConfig,
    settings: LoopSettings,
    *,
    batch_size: int,
    log_folder: Path | None = None,
) -> Checkpoint:
    """Train a retrieval model on a dataset's training split and write the artefact of kind "retrieval".

    Raises ValueError where the semantic-ID table was made for another catalogue.
    """
    dataset_folder, table_folder = find(dataset_folder, "dataset"), find(table_folder, "semantic_ids")
    dataset, table = Dataset.read(dataset_folder), SemanticIdTable.read(table_folder)
    if table.item_ids != dataset.catalog.id_map:
        raise ValueError(
            f"{table_folder} has the semantic IDs of other items than {dataset_folder} has "
            f"({len(table)} and {len(dataset.catalog)}). Make them again with `rqrec tokenize`."
        )
    torch.manual_seed(settings.seed)
    model = build_model(config)
    task = DecoderTask(model, table, leave_one_out(dataset.sequences), batch_size, settings.seed)
    history = fit(task, settings, "Training the retrieval model", log_folder)
    made_with = {
        "model": {"architecture": name_of(config), **asdict(config)},
        "training": asdict(settings),
        "batch_size": batch_size,
    }
    made_from = {
        "dataset": read_manifest(dataset_folder, "dataset").hash,
        "semantic_ids": read_manifest(table_folder, "semantic_ids").hash,
    }
    best = max(history.validation, key=lambda record: record["ndcg@10"])
    facts = {
        "parameters": parameter_count(model),
        "validation": best,
    }
    checkpoint = Checkpoint(model, table, dataset.catalog)
    with create(folder, "retrieval", settings=made_with, made_from=made_from, facts=facts) as target:
        write_checkpoint(target, checkpoint)
        history.write(target)
    return checkpoint
