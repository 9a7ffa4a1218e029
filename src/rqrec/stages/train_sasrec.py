"""`rqrec train-sasrec configs/sasrec_amazon.gin`: the baseline that knows items by their index alone."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from rqrec.core.artifact import create, find, read_manifest
from rqrec.core.progress import log
from rqrec.data.dataset import Dataset
from rqrec.data.splits import split_named
from rqrec.models.retrieval_model import parameter_count
from rqrec.models.sasrec import SasRec, SasRecConfig
from rqrec.retrieval.artifact import SasRecArtifact, write_sasrec
from rqrec.stages.inputs import prepared_in
from rqrec.training.checkpoint import CheckpointManager
from rqrec.training.loop import LoopConfig, fit
from rqrec.training.processes import Processes
from rqrec.training.sasrec import SasRecTask
from rqrec.training.tracking import check_wandb


def train(
    iterations: int = 2000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    warmup: int = 100,
    schedule: str = "cosine",
    patience: int = 0,
    max_minutes: float | None = None,
    ema_decay: float | None = None,
    max_grad_norm: float | None = 1.0,
    amp: bool = False,
    mixed_precision_type: str = "bf16",
    dataset: str = "amazon",
    dataset_folder: str = "dataset/amazon",
    dataset_split: str = "beauty",
    force_dataset_process: bool = False,
    split: str = "leave_one_out",
    save_dir_root: str = "out/sasrec",
    save_model_every: int = 500,
    keep_last: int = 2,
    resume: str = "auto",
    wandb_logging: bool = False,
    partial_eval_every: int = 0,
    full_eval_every: int = 500,
    max_items: int = 50,
    attn_dropout: float = 0.4,
    attn_heads: int = 2,
    attn_embed_dim: int = 128,
    attn_layers: int = 2,
    seed: int = 0,
) -> Path:
    """Train SASRec on the interactions of a dataset; returns the folder of the artefact.

    It is `save_dir_root/sasrec`. The arguments mean what they mean for the retrieval model (see
    `rqrec.stages.train_decoder.train`).
    """
    if wandb_logging:
        check_wandb()
    processes = Processes.join()
    folder = processes.from_first(
        lambda: prepared_in(dataset, Path(dataset_folder), dataset_split, force=force_dataset_process)
    )
    root = Path(save_dir_root)
    settings = LoopConfig(
        iterations=iterations,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        schedule=schedule,
        patience=patience,
        max_minutes=max_minutes,
        ema_decay=ema_decay,
        max_grad_norm=max_grad_norm,
        eval_every=full_eval_every,
        partial_eval_every=partial_eval_every,
        mixed_precision=mixed_precision_type if amp else "no",
        seed=seed,
    )
    train_sasrec(
        folder,
        root / "sasrec",
        settings,
        batch_size=batch_size,
        split=split,
        checkpoints=CheckpointManager(
            root, save_every=save_model_every, keep_last=keep_last, resume=resume, wandb=wandb_logging
        ),
        max_items=max_items,
        width=attn_embed_dim,
        heads=attn_heads,
        layers=attn_layers,
        dropout=attn_dropout,
    )
    best = read_manifest(root / "sasrec", "sasrec").metrics["validation"]
    log(f"SASRec is in {root / 'sasrec'}: validation ndcg@10 {best['ndcg@10']:.4f}.")
    return root / "sasrec"


def train_sasrec(
    dataset_folder: Path,
    folder: Path,
    settings: LoopConfig,
    *,
    batch_size: int,
    split: str = "leave_one_out",
    checkpoints: CheckpointManager | None = None,
    **sizes: Any,
) -> SasRecArtifact:
    """Train SASRec on a dataset's training split and write the artefact of kind "sasrec".

    `sizes` are those of SasRecConfig without `n_items`. `batch_size` counts the sequences of all processes.
    `checkpoints` says where the run is kept until it is finished; its settings and inputs are filled in here.
    """
    dataset_folder = find(dataset_folder, "dataset")
    dataset = Dataset.read(dataset_folder)
    processes = Processes.join()
    torch.manual_seed(settings.seed)
    model = SasRec(SasRecConfig(len(dataset.catalog), **sizes))
    task = SasRecTask(model, split_named(split)(dataset.sequences), batch_size, settings.seed)
    made_with = {
        "model": asdict(model.config),
        "training": asdict(settings),
        "batch_size": batch_size,
        "split": split,
    }
    inputs = {"dataset": read_manifest(dataset_folder, "dataset").hash}
    if checkpoints:
        checkpoints = replace(checkpoints, settings=made_with, inputs=inputs)
    history = fit(task, settings, "Training SASRec", checkpoints)
    facts = {
        "parameters": parameter_count(model),
        "validation": max(history.validation, key=lambda record: record["ndcg@10"]),
        "stopped": history.stopped,
        "processes": processes.count,
    }
    checkpoint = SasRecArtifact(model, dataset.catalog)
    if processes.is_first:
        with create(folder, "sasrec", settings=made_with, inputs=inputs, metrics=facts) as target:
            write_sasrec(target, checkpoint)
            history.write(target)
        if checkpoints:
            checkpoints.clear()
    processes.wait()
    return checkpoint
