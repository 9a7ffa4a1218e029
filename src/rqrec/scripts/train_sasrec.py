"""`rqrec train-sasrec configs/sasrec_amazon.gin`: the baseline that knows items by their index alone."""

from pathlib import Path

from rqrec.artifact import read_manifest
from rqrec.progress import say
from rqrec.scripts.inputs import prepared_in
from rqrec.training.checkpoint import Keeping
from rqrec.training.loop import LoopSettings
from rqrec.training.processes import Processes
from rqrec.training.sasrec import train_sasrec
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
    `rqrec.scripts.train_decoder.train`).
    """
    if wandb_logging:
        check_wandb()
    processes = Processes.join()
    folder = processes.from_first(
        lambda: prepared_in(dataset, Path(dataset_folder), dataset_split, force=force_dataset_process)
    )
    root = Path(save_dir_root)
    settings = LoopSettings(
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
        keeping=Keeping(
            root, save_every=save_model_every, keep_last=keep_last, resume=resume, wandb=wandb_logging
        ),
        max_items=max_items,
        width=attn_embed_dim,
        heads=attn_heads,
        layers=attn_layers,
        dropout=attn_dropout,
    )
    best = read_manifest(root / "sasrec", "sasrec").facts["validation"]
    say(f"SASRec is in {root / 'sasrec'}: validation ndcg@10 {best['ndcg@10']:.4f}.")
    return root / "sasrec"
