"""The dataset of `tests/tiny.py` as a custom folder, and settings that train on it in seconds."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rqrec.core.config import with_settings
from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
from rqrec.stages.train_rqvae import TrainRqVaeConfig, train_rqvae
from tests.tiny import tiny_dataset, tiny_vectors


def write_world(folder: Path) -> Path:
    """log.parquet, whose item ids are rows of item_embeddings.npy."""
    folder.mkdir(parents=True, exist_ok=True)
    sequences = tiny_dataset(240).sequences
    users = np.repeat(np.arange(len(sequences)), sequences.lengths)
    log = {"user_id": users, "item_id": sequences.items, "timestamp": np.arange(len(users))}
    pl.DataFrame(log).write_parquet(folder / "log.parquet")
    np.save(folder / "item_embeddings.npy", tiny_vectors())
    return folder


def rqvae_settings(world: Path, root: Path, **more: Any) -> dict[str, Any]:
    return {
        "dataset": "custom",
        "dataset_folder": str(world),
        "save_dir_root": str(root),
        "iterations": 12,
        "batch_size": 16,
        "warmup": 2,
        "do_eval": False,
        "vae_embed_dim": 8,
        "vae_hidden_dims": [16],
        "vae_codebook_size": 8,
        "vae_n_layers": 2,
        **more,
    }


def decoder_settings(world: Path, root: Path, **more: Any) -> dict[str, Any]:
    return {
        "dataset": "custom",
        "dataset_folder": str(world),
        "save_dir_root": str(root),
        "iterations": 12,
        "batch_size": 16,
        "warmup": 2,
        "max_items": 5,
        "full_eval_every": 0,
        "attn_dropout": 0.0,
        "attn_heads": 2,
        "attn_embed_dim": 16,
        "attn_layers": 1,
        "decoder_embed_dim": 16,
        **more,
    }


def bindings(settings: dict[str, Any]) -> list[str]:
    return [f"train.{name}={value!r}" for name, value in settings.items()]


def run(script: str, settings: dict[str, Any], **folders: Path) -> Path:
    """Train in this process with settings by their gin names."""
    if script == "rqvae":
        return train_rqvae(with_settings(TrainRqVaeConfig(), settings), **folders)
    return train_decoder(with_settings(TrainDecoderConfig(), settings), **folders)
