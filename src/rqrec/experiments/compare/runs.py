"""One run of a comparison: a retrieval model or a baseline, selected on validation and tested once.

Shapes: N items, D width of a vector.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from rqrec.core.artifact import create, is_current, read_json, read_manifest, write_json
from rqrec.data.dataset import Dataset
from rqrec.data.embeddings import embeddings_hash, read_content_vectors
from rqrec.data.splits import EvalExamples, Split, leave_one_out
from rqrec.evaluation.evaluate import evaluate
from rqrec.evaluation.registry import fit_baseline
from rqrec.evaluation.results_io import EVALUATION_FILE
from rqrec.experiments.compare.config import TrainingConfig
from rqrec.experiments.compare.sizes import Budget, step_flops, steps_within
from rqrec.experiments.tasks import Task, run_dir
from rqrec.models.architectures import build_model, name_of
from rqrec.models.retrieval_model import ModelConfig, parameter_count
from rqrec.retrieval.artifact import read_retrieval
from rqrec.retrieval.ranking import ItemRecommender
from rqrec.retrieval.retriever import Retriever
from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.checkpoint import CheckpointConfig
from rqrec.training.decoder_task import DecoderTask
from rqrec.training.loop_config import LoopConfig
from rqrec.training.processes import Processes

SECONDS_FILE = "seconds.json"
PROFILED_BATCHES = 24  # first batches of training, on whose counted operations `step_flops` is fitted


class Run(Task, Protocol):
    """A task that ends in an "evaluation" artefact in its folder."""

    @property
    def folder(self) -> Path:
        """Folder of the run's artefacts."""


@dataclass(frozen=True)
class ModelRun:
    """A retrieval model on the semantic IDs of one kind and seed; the model has the same seed."""

    kind: str
    seed: int
    config: ModelConfig
    dataset: Path
    table: Path
    teraflops: float
    training: TrainingConfig
    root: Path

    @property
    def architecture(self) -> str:
        """Such as "hierarchical"."""
        return name_of(self.config)

    @property
    def name(self) -> str:
        """Such as "hierarchical-trained-0"."""
        return f"{self.architecture}-{self.kind}-{self.seed}"

    @property
    def folder(self) -> Path:
        """Holds `retrieval` and `evaluation`."""
        inputs = {
            "dataset": read_manifest(self.dataset, "dataset").hash,
            "semantic_ids": read_manifest(self.table, "semantic_ids").hash,
        }
        settings = {"model": asdict(self.config), "teraflops": self.teraflops, **asdict(self.training)}
        return run_dir(self.root / "runs", self.name, settings, inputs)

    def run(self) -> None:
        """Train within the budget, and test the weights that were best on validation."""
        split = leave_one_out(Dataset.read(self.dataset).sequences)
        budget = self._budget(split)
        with _timed(self.folder / SECONDS_FILE):
            config = self._training_config(budget.iterations)
            retrieval = train_decoder(config, dataset=self.dataset, semantic_ids=self.table)
        artifact, device = read_retrieval(retrieval), Processes.join().device
        model = artifact.model.to(device)
        test = _test(Retriever(model, artifact.table, self.training.beam_width, device), split.test)
        manifest = read_manifest(retrieval, "retrieval")
        result = {
            "architecture": self.architecture,
            "semantic_ids": self.kind,
            "seed": self.seed,
            "parameters": parameter_count(model),
            "width": self.config.attn_embed_dim,
            "iterations": budget.iterations,
            "teraflops": budget.teraflops,
            "training_seconds": read_json(self.folder / SECONDS_FILE)["seconds"],
            "validation": manifest.metrics["validation"],
            **test,
        }
        _write_result(self.folder, result, {"retrieval": manifest.hash})

    def _budget(self, split: Split) -> Budget:
        """The training steps that the compute budget pays for, counted on the batches of this training."""
        model, table = build_model(self.config), SemanticIdTable.read(self.table)
        task = DecoderTask(model, table, split, self.training.batch_size, self.seed)
        flops = step_flops(model, task.trie, [task.batch(step) for step in range(PROFILED_BATCHES)])
        return steps_within(self.teraflops, (flops(task.batch(step)) for step in count()))

    def _training_config(self, iterations: int) -> TrainDecoderConfig:
        training, sizes = self.training, asdict(self.config)
        for known in ("level_sizes", "n_items", "content_dim"):  # from the semantic IDs and the embeddings
            del sizes[known]
        return TrainDecoderConfig(
            loop=LoopConfig(
                iterations,
                training.learning_rate,
                training.weight_decay,
                warmup=round(training.warmup * iterations),
                full_eval_every=-(-iterations // training.validations),
                seed=self.seed,
            ),
            checkpoints=CheckpointConfig(self.folder, save_model_every=training.save_model_every),
            architecture=self.architecture,
            model=sizes,
            batch_size=training.batch_size,
            beam_width=training.beam_width,
            validation_users=training.validation_users,
        )


@dataclass(frozen=True)
class BaselineRun:
    """A baseline, fitted to the same split and evaluated in the same way."""

    name: str
    dataset: Path
    embeddings: Path
    root: Path

    @property
    def folder(self) -> Path:
        """Holds `evaluation`."""
        return run_dir(self.root / "runs", self.name, {}, self._inputs())

    def run(self) -> None:
        """Fit and test."""
        dataset, vectors_ND = Dataset.read(self.dataset), read_content_vectors(self.embeddings)
        split = leave_one_out(dataset.sequences)
        recommender = fit_baseline(self.name, split, len(dataset.catalog), vectors_ND)
        validation = evaluate(recommender, split.validation).metrics
        result = {"baseline": self.name, "validation": validation, **_test(recommender, split.test)}
        _write_result(self.folder, result, self._inputs())

    def _inputs(self) -> dict[str, str]:
        dataset = read_manifest(self.dataset, "dataset").hash
        return {"dataset": dataset, "embeddings": embeddings_hash(self.embeddings)}


def is_finished(run: Run) -> bool:
    """Whether the run's result exists."""
    return is_current(run.folder / "evaluation", "evaluation", {}, None)


def result_of(run: Run) -> dict[str, Any]:
    """The result of a finished run."""
    return read_json(run.folder / "evaluation" / EVALUATION_FILE)


def _test(recommender: ItemRecommender, examples: EvalExamples) -> dict[str, Any]:
    start = time.process_time()
    metrics = evaluate(recommender, examples, description="Testing").metrics
    return {"test": metrics, "users_per_second": len(examples) / (time.process_time() - start)}


def _write_result(folder: Path, result: dict[str, Any], inputs: dict[str, str]) -> None:
    settings = {"split": "test", "protocol": "leave-one-out, full catalogue, items", "exclude_seen": True}
    with create(folder / "evaluation", "evaluation", settings=settings, inputs=inputs) as target:
        write_json(target / EVALUATION_FILE, result)


@contextmanager
def _timed(path: Path) -> Iterator[None]:
    """Add the block's CPU seconds to those in the file, even if the block is interrupted."""
    before = read_json(path)["seconds"] if path.is_file() else 0.0
    start = time.process_time()
    try:
        yield
    finally:
        write_json(path, {"seconds": before + time.process_time() - start})
