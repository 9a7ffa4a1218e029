"""`python run_rqvae.py configs/custom.gin`: semantic IDs of custom embeddings, as one array.

Shapes: N items, L levels.
"""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from rqrec.core.artifact import atomic_write, check_replaceable
from rqrec.core.progress import log
from rqrec.core.values import Config
from rqrec.data.embeddings import read_embeddings
from rqrec.tokenizer.loading import load_tokenizer
from rqrec.tokenizer.semantic_ids import deduplicate


@dataclass(frozen=True)
class GenerateSemanticIdsConfig(Config):
    """Paths of the embeddings, the tokenizer and the output."""

    IGNORED: ClassVar = {"batch_size": "the codes do not depend on it."}

    dataset_folder: Path = field(default=Path("dataset/custom"), metadata={"section": "train"})
    """Folder that holds `item_embeddings.npy`; by default that of `train.dataset_folder` in the same file."""
    pretrained_model_path: str = "out/rqvae/custom"
    """A tokenizer's folder, the run folder of its training, a .pt file or a Hugging Face repository."""
    output_path: Path = Path("out/custom/semantic_ids.npy")
    """The .npy file to write."""


def generate_semantic_ids(config: GenerateSemanticIdsConfig) -> Path:
    """Write int64 [num_items, vae_n_layers + 1], every row unique, in the order of the embeddings."""
    check_replaceable(config.output_path, _has_semantic_ids)
    model = load_tokenizer(config.pretrained_model_path).model
    codes_NL = model.semantic_ids(read_embeddings(config.dataset_folder).vectors).numpy()
    rows = np.concatenate([codes_NL, deduplicate(codes_NL)[:, None]], axis=1)
    with atomic_write(config.output_path) as file:
        np.save(file, rows)
    log(f"Wrote {len(rows)} semantic IDs of {rows.shape[1]} codes to {config.output_path}.")
    return config.output_path


def _has_semantic_ids(file: Path) -> bool:
    try:
        rows = np.load(file, mmap_mode="r")
    except (EOFError, zipfile.BadZipFile):
        return False
    return isinstance(rows, np.ndarray) and rows.dtype == np.int64 and rows.ndim == 2
