"""Training of a retrieval model on semantic IDs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from rqrec.artifact import create, find, read_manifest
from rqrec.data.dataset import Dataset
from rqrec.data.embeddings import embeddings_hash
from rqrec.data.splits import Split, split_named
from rqrec.data.text import content_vectors
from rqrec.evaluation.evaluate import evaluate
from rqrec.evaluation.metrics import ranking_metrics
from rqrec.retrieval.architectures import AnyModel, build_model, name_of
from rqrec.retrieval.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from rqrec.retrieval.model import Batch, CodeLookup, ModelConfig, RetrievalModel, parameter_count
from rqrec.retrieval.retriever import Retriever
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.checkpoint import Keeping
from rqrec.training.loop import LoopSettings, fit
from rqrec.training.processes import Processes
from rqrec.training.remember import memory_for
from rqrec.training.windows import Windows

GLANCE_SAMPLE, GLANCE_BATCH = 2048, 256  # cases of a quick look at the validation split


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
        self._lookup = CodeLookup.of(self.table.codes_NL)

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

    def after_step(self, step: int) -> Mapping[str, float]:
        """Nothing to keep up."""
        return {}

    @torch.no_grad()
    def glance(self) -> Mapping[str, float]:
        """Cross-entropy of the codes of (a sample of) the validation items, in nats: far cheaper than ranking."""
        model: RetrievalModel[Any] = self.model
        cases = self.split.validation.every(-(-len(self.split.validation) // GLANCE_SAMPLE))
        total_L = torch.zeros(len(self.model.level_sizes), dtype=torch.float64)
        for part in cases.batches(GLANCE_BATCH):
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

    def concerns(self, measured: Mapping[str, float]) -> Sequence[str]:
        """None: the metrics speak."""
        return []

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def train_decoder(
    dataset_folder: Path,
    table_folder: Path,
    folder: Path,
    config: ModelConfig,
    settings: LoopSettings,
    *,
    batch_size: int,
    moving_windows: bool = True,
    split: str = "leave_one_out",
    validation_users: int | None = None,
    start_from: Path | None = None,
    memory: bool = False,
    embeddings: Path | None = None,
    keeping: Keeping | None = None,
) -> Checkpoint:
    """Train a retrieval model on a dataset's training split and write the artefact of kind "retrieval".

    `batch_size` counts the sequences of all processes. With `validation_users` a validation ranks for every
    n-th user, so many at most and the same ones each time; without, for all. `start_from` is a "retrieval"
    artefact whose weights are the first ones. `memory` joins a memory of neighbours to the trained model, with
    the share that does best on those validation users (`rqrec.retrieval.memory`); the items' `embeddings`, where
    they are given, tell it what is alike in content. `keeping` says where the run is kept until it is finished; its
    settings and inputs are filled in here.

    Raises ValueError where the semantic-ID table was made for another catalogue, `start_from` is of another
    model, the model reads times and the dataset kept none, or the embeddings are of other items.
    """
    dataset_folder, table_folder = find(dataset_folder, "dataset"), find(table_folder, "semantic_ids")
    dataset, table = Dataset.read(dataset_folder), SemanticIdTable.read(table_folder)
    if table.item_ids != dataset.catalog.id_map:
        raise ValueError(
            f"{table_folder} has the semantic IDs of other items than {dataset_folder} has "
            f"({len(table)} and {len(dataset.catalog)}). Make them again with `rqrec tokenize`."
        )
    contents_ND = content_vectors(embeddings) if memory and embeddings else None
    if contents_ND is not None and len(contents_ND) != len(table):
        raise ValueError(
            f"{embeddings} has embeddings of {len(contents_ND)} items, but {table_folder} has semantic IDs of "
            f"{len(table)}. Make both from the same dataset."
        )
    if config.time_gaps and dataset.sequences.times is None:
        raise ValueError(
            f"time_gaps is {config.time_gaps}, but the source of {dataset_folder} kept no time, only each "
            "user's order. Set it to 0, or prepare the dataset from files that keep the time."
        )
    processes = Processes.join()
    torch.manual_seed(settings.seed)
    model = build_model(config)
    task = DecoderTask(
        model,
        table,
        split_named(split)(dataset.sequences),
        batch_size,
        settings.seed,
        moving_windows,
        validation_users=validation_users,
    )
    made_with = {
        "model": {"architecture": name_of(config), **asdict(config)},
        "training": asdict(settings),
        "batch_size": batch_size,
        "moving_windows": moving_windows,
        "split": split,
        "validation_users": validation_users,
        "memory": memory,
    }
    made_from = {
        "dataset": read_manifest(dataset_folder, "dataset").hash,
        "semantic_ids": read_manifest(table_folder, "semantic_ids").hash,
    }
    if memory and embeddings:
        made_from["embeddings"] = embeddings_hash(embeddings)
    if start_from:
        start_from = find(start_from, "retrieval")
        _load_weights(model, start_from)
        made_from["start"] = read_manifest(start_from, "retrieval").hash
    if keeping:
        keeping = replace(keeping, settings=made_with, made_from=made_from)
    history = fit(task, settings, "Training the retrieval model", keeping)
    best = max(history.validation, key=lambda record: record["ndcg@10"])
    facts = {
        "parameters": parameter_count(model),
        "validation": best,
        "stopped": history.stopped,
        "processes": processes.count,
        "collisions": read_manifest(table_folder, "semantic_ids").settings.get("collisions", "extra_code"),
    }
    checkpoint = Checkpoint(model, table, dataset.catalog)
    if processes.is_first:
        if memory:
            retriever = Retriever(model.eval(), table, device=next(model.parameters()).device)
            chosen = memory_for(
                retriever, task.split, contents_ND=contents_ND, validation_users=validation_users
            )
            checkpoint = checkpoint._replace(memory=chosen)
            facts["memory"] = asdict(chosen.settings)
        with create(folder, "retrieval", settings=made_with, made_from=made_from, facts=facts) as target:
            write_checkpoint(target, checkpoint)
            history.write(target)
        if keeping:
            keeping.clear()
    processes.wait()
    return checkpoint


def _load_weights(model: AnyModel, folder: Path) -> None:
    other = read_checkpoint(folder).model
    wanted, found = asdict(model.config), asdict(other.config)
    if differing := [f"{k} is {wanted[k]} and was {found[k]}" for k in wanted if wanted[k] != found.get(k)]:
        raise ValueError(
            f"train.pretrained_decoder_path: {folder} is of another model: {'; '.join(differing)}. Give it the "
            f"same sizes and the tokenizer that it was trained with, or leave the path out."
        )
    model.load_state_dict(other.state_dict())
