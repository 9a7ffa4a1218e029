"""One run of a comparison: a model on semantic IDs, or a baseline; trained, selected on validation, tested once."""

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
from rqrec.experiments.compare.run_dirs import run_dir
from rqrec.experiments.compare.sizes import Budget, step_flops, steps_within
from rqrec.models.architectures import build_model, name_of
from rqrec.models.retrieval_model import ModelConfig, parameter_count
from rqrec.retrieval.artifact import read_retrieval
from rqrec.retrieval.ranking import ItemRecommender
from rqrec.retrieval.retriever import Retriever
from rqrec.stages.train_decoder import train_decoder
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.checkpoint import CheckpointConfig
from rqrec.training.decoder_task import DecoderTask
from rqrec.training.loop import LoopConfig
from rqrec.training.processes import Processes

RESULT_FILE = "evaluation.json"
SECONDS_FILE = "seconds.json"
COUNTED = 24  # the first batches of training, from which the operations of every step follow


class Run(Protocol):
    """What is trained and tested in a folder of its own."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def folder(self) -> Path:
        """Where its artefacts are."""

    def work(self) -> None:
        """Train and test, from where an earlier run was interrupted."""


@dataclass(frozen=True)
class Training:
    """How every model of a comparison is trained; see LoopConfig.

    warmup: share of the iterations
    validations: how many over the training, evenly
    validation_users: that a validation ranks for, at most, the same ones for all
    beam_width: in the test
    save_every: steps between checkpoints
    """

    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup: float
    validations: int
    validation_users: int
    beam_width: int
    save_every: int

    def __post_init__(self) -> None:
        for name in ("batch_size", "validations", "validation_users", "beam_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"compare.{name} is {getattr(self, name)}, but must be at least 1.")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"compare.warmup is {self.warmup}: it is a share of the iterations, below 1.")


@dataclass(frozen=True)
class ModelRun:
    """A retrieval model on the semantic IDs of a kind and seed, with the same seed."""

    ids: str
    seed: int
    config: ModelConfig
    dataset: Path
    table: Path
    teraflops: float
    training: Training
    root: Path

    @property
    def architecture(self) -> str:
        """Its name."""
        return name_of(self.config)

    @property
    def name(self) -> str:
        """Such as "hierarchical-trained-0"."""
        return f"{self.architecture}-{self.ids}-{self.seed}"

    @property
    def folder(self) -> Path:
        """Where `retrieval` and `evaluation` are."""
        inputs = {
            "dataset": read_manifest(self.dataset, "dataset").hash,
            "semantic_ids": read_manifest(self.table, "semantic_ids").hash,
        }
        settings = {"model": asdict(self.config), "teraflops": self.teraflops, **asdict(self.training)}
        return run_dir(self.root / "runs", self.name, settings, inputs)

    def work(self) -> None:
        """Train within the budget, and test the weights that were best on validation."""
        split = leave_one_out(Dataset.read(self.dataset).sequences)
        retrieval, training = self.folder / "retrieval", self.training
        iterations, teraflops = self._spent(split)
        if not is_current(retrieval, "retrieval", {}, None):
            settings = LoopConfig(
                iterations,
                training.learning_rate,
                training.weight_decay,
                warmup=round(training.warmup * iterations),
                full_eval_every=-(-iterations // training.validations),
                seed=self.seed,
            )
            with _timed(self.folder / SECONDS_FILE):
                train_decoder(
                    self.dataset,
                    self.table,
                    retrieval,
                    self.config,
                    settings,
                    batch_size=training.batch_size,
                    validation_users=training.validation_users,
                    checkpoints=CheckpointConfig(self.folder, save_model_every=training.save_every),
                )
        checkpoint, device = read_retrieval(retrieval), Processes.join().device
        model = checkpoint.model.to(device)
        tested = _test(Retriever(model, checkpoint.table, training.beam_width, device), split.test)
        result = {
            "architecture": self.architecture,
            "semantic_ids": self.ids,
            "seed": self.seed,
            "parameters": parameter_count(model),
            "width": self.config.attn_embed_dim,
            "iterations": iterations,
            "teraflops": teraflops,
            "training_seconds": read_json(self.folder / SECONDS_FILE)["seconds"],
            "validation": read_manifest(retrieval, "retrieval").metrics["validation"],
            **tested,
        }
        _write_result(self.folder, result, {"retrieval": read_manifest(retrieval, "retrieval").hash})

    def _spent(self, split: Split) -> Budget:
        """How many of the batches to come the budget pays for."""
        model, table = build_model(self.config), SemanticIdTable.read(self.table)
        task = DecoderTask(model, table, split, self.training.batch_size, self.seed)
        flops = step_flops(model, [task.batch(number) for number in range(COUNTED)])
        return steps_within(self.teraflops, (flops(task.batch(number)) for number in count()))


@dataclass(frozen=True)
class BaselineRun:
    """A baseline, fitted to the same split and judged by the same evaluator."""

    name: str
    dataset: Path
    embeddings: Path
    root: Path

    @property
    def folder(self) -> Path:
        """Where `evaluation` is."""
        return run_dir(self.root / "runs", self.name, {}, self._made_from())

    def work(self) -> None:
        """Fit and test."""
        dataset, vectors_ND = Dataset.read(self.dataset), read_content_vectors(self.embeddings)
        split = leave_one_out(dataset.sequences)
        recommender = fit_baseline(self.name, split.train, len(dataset.catalog), vectors_ND)
        validation = evaluate(recommender, split.validation).metrics
        result = {"baseline": self.name, "validation": validation, **_test(recommender, split.test)}
        _write_result(self.folder, result, self._made_from())

    def _made_from(self) -> dict[str, str]:
        dataset = read_manifest(self.dataset, "dataset").hash
        return {"dataset": dataset, "embeddings": embeddings_hash(self.embeddings)}


def is_finished(run: Run) -> bool:
    """Whether its result is there."""
    return is_current(run.folder / "evaluation", "evaluation", {}, None)


def work_on(run: Run) -> None:
    """Its work, as a function that travels to another process."""
    run.work()


def result_of(run: Run) -> dict[str, Any]:
    """What a finished run found."""
    return read_json(run.folder / "evaluation" / RESULT_FILE)


def _test(recommender: ItemRecommender, cases: EvalExamples) -> dict[str, Any]:
    start = time.process_time()
    metrics = evaluate(recommender, cases, description="Testing").metrics
    return {"test": metrics, "users_per_second": len(cases) / (time.process_time() - start)}


def _write_result(folder: Path, result: dict[str, Any], inputs: dict[str, str]) -> None:
    settings = {"split": "test", "protocol": "leave-one-out, full catalogue, items", "exclude_seen": True}
    with create(folder / "evaluation", "evaluation", settings=settings, inputs=inputs) as target:
        write_json(target / RESULT_FILE, result)


@contextmanager
def _timed(path: Path) -> Iterator[None]:
    """Add the block's processor seconds to those in the file, also where it is interrupted."""
    before = read_json(path)["seconds"] if path.is_file() else 0.0
    start = time.process_time()
    try:
        yield
    finally:
        write_json(path, {"seconds": before + time.process_time() - start})
