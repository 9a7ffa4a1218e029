"""`rqrec train-sasrec configs/sasrec_amazon.gin`: train SASRec, a baseline with one learned vector per item.

Shapes: N items, C width of a content vector.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from rqrec.core.artifact import find, read_manifest
from rqrec.core.config import check_fields_of
from rqrec.core.progress import log
from rqrec.core.tensors import check_memory
from rqrec.core.values import Config, NonNegativeInt, PositiveInt
from rqrec.data.dataset import Dataset
from rqrec.data.embeddings import content_of, embeddings_hash
from rqrec.data.splits import get_protocol
from rqrec.models.sasrec import SasRec, SasRecConfig
from rqrec.retrieval.artifact import SasRecArtifact, write_sasrec
from rqrec.stages.raw_data import DataConfig, dataset_from_raw, given, inputs_from_raw, link_dataset
from rqrec.training.checkpoint import CheckpointConfig, CheckpointManager
from rqrec.training.loop import fit
from rqrec.training.loop_config import LoopConfig
from rqrec.training.next_item_task import training_metrics, warn_of_unreachable_targets
from rqrec.training.processes import Processes
from rqrec.training.sasrec_task import SasRecTask
from rqrec.training.schedule import scheduled
from rqrec.training.tracking import check_wandb

SASREC_NAMES = {
    "width": "attn_embed_dim",
    "heads": "attn_heads",
    "layers": "attn_layers",
    "dropout": "attn_dropout",
}


@dataclass(frozen=True)
class TrainSasRecConfig(Config):
    """How SASRec is trained."""

    ALIASES: ClassVar = {"eval_every": "full_eval_every", "split": "protocol"}

    data: DataConfig = DataConfig()
    loop: LoopConfig = LoopConfig(
        iterations=2000, learning_rate=4e-3, weight_decay=0.05, warmup=200, full_eval_every=500
    )
    checkpoints: CheckpointConfig = CheckpointConfig(Path("out/sasrec"), save_model_every=500)
    model: Mapping[str, Any] = field(
        default_factory=dict,
        metadata={"fields_of": SasRecConfig, "without": ("n_items", "content_dim"), "names": SASREC_NAMES},
    )
    """Fields of SasRecConfig."""
    content_input: bool = False
    """Add a linear map of an item's content to its vector; needs embeddings."""
    batch_size: PositiveInt = 256
    """Targets per optimizer step over all processes, each with its history."""
    epochs: NonNegativeInt = 0
    """Train for this many passes over the training data, even if they take more than `iterations` steps, and limit
    warm-up to a tenth of the steps; 0: train for `iterations` steps. A pass is counted as if its batches were all
    full (see docs/training.md)."""
    validations: NonNegativeInt = 0
    """Validate this many times, evenly spaced; 0: every full_eval_every steps."""
    validation_users: PositiveInt | None = None
    """Validate on at most this many users, the same ones each time; None: on all."""
    protocol: str = "leave_one_out"
    """leave_one_out or temporal."""
    exclude_seen: bool = True
    """Whether validation, and by default evaluation and recommendation, exclude the items of the history; False for
    logs in which people take an item again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields_of(self, "model", SasRecConfig, n_items=1)
        get_protocol(self.protocol)  # raises for an unknown name


def train_sasrec(
    config: TrainSasRecConfig, *, dataset: Path | None = None, embeddings: Path | None = None
) -> Path:
    """Train SASRec on interactions; returns the "sasrec" artefact, `save_dir_root/sasrec`.

    Without `dataset`, a dataset (and with `content_input` its embeddings) is made from the raw data that
    `config.data` names. An artefact with the same settings and inputs is reused; an unfinished run is resumed. Raises
    ValueError if `save_dir_root/sasrec` was made differently.
    """
    if config.checkpoints.wandb_logging:
        check_wandb()
    processes = Processes.join()
    if dataset is None:
        dataset, embeddings = processes.from_first(lambda: _from_raw(config, embeddings))
    out = config.checkpoints.save_dir_root / "sasrec"
    _train(config, find(dataset, "dataset"), embeddings, out)
    best = read_manifest(out, "sasrec").metrics["validation"]
    log(f"SASRec is in {out}: validation ndcg@10 {best['ndcg@10']:.4f}.")
    return out


def _from_raw(config: TrainSasRecConfig, embeddings: Path | None) -> tuple[Path, Path | None]:
    """The dataset and, if the model reads content and they are not given, its embeddings, made from raw data."""
    if not config.content_input:
        dataset = dataset_from_raw(config.data)
        link_dataset(dataset, config.checkpoints.save_dir_root)
        return dataset, embeddings
    inputs = inputs_from_raw(config.data, embeddings)
    if inputs.dataset is None:
        raise ValueError(
            f"{config.data.dataset_folder} has only embeddings, but SASRec needs interactions too."
        )
    link_dataset(inputs.dataset, config.checkpoints.save_dir_root)
    return inputs.dataset, inputs.embeddings


def _train(config: TrainSasRecConfig, dataset: Path, embeddings: Path | None, out: Path) -> None:
    data, processes = Dataset.read(dataset), Processes.join()
    inputs, content_NC = {"dataset": read_manifest(dataset, "dataset").hash}, None
    if config.content_input:
        content_NC = content_of(given(embeddings), dataset, config.protocol, len(data.catalog))
        inputs["embeddings"] = embeddings_hash(given(embeddings))
    content_dim = 0 if content_NC is None else content_NC.shape[1]
    model_config = SasRecConfig(len(data.catalog), **config.model, content_dim=content_dim)
    split = get_protocol(config.protocol)(data.sequences)
    steps_per_epoch = -(-len(split.train.items) // config.batch_size)
    loop = scheduled(config.loop, config.epochs, config.validations, steps_per_epoch)
    settings = {
        "model": asdict(model_config),
        "training": asdict(loop),
        "batch_size": config.batch_size,
        "protocol": config.protocol,
        "exclude_seen": config.exclude_seen,
        "validation_users": config.validation_users,
    }
    checkpoints = CheckpointManager(config.checkpoints, settings, inputs)
    if processes.from_first(lambda: checkpoints.finished(out, "sasrec")):
        return
    check_memory(lambda: SasRec(model_config))
    torch.manual_seed(loop.seed)
    model = SasRec(model_config)
    if content_NC is not None and model.content is not None:
        model.content.set(content_NC)
    warn_of_unreachable_targets(split.validation, exclude_seen=config.exclude_seen)
    task = SasRecTask(
        model, split, config.batch_size, loop.seed, config.exclude_seen, config.validation_users
    )
    history = fit(task, loop, "Training SASRec", checkpoints)
    if processes.is_first:
        with checkpoints.finish(out, "sasrec", training_metrics(model, history)) as target:
            write_sasrec(target, SasRecArtifact(model, data.catalog))
            history.write(target)
    processes.wait()
