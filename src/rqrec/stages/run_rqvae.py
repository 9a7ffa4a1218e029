"""`python run_rqvae.py configs/custom.gin`: semantic IDs of own embeddings."""

from pathlib import Path

import numpy as np

from rqrec.core.artifact import atomic_write
from rqrec.core.progress import log
from rqrec.data.embeddings import read_embeddings
from rqrec.tokenizer.loading import load_tokenizer
from rqrec.tokenizer.semantic_ids import deduplicate


def generate_semantic_ids(
    dataset_folder: str = "dataset/custom",
    pretrained_model_path: str = "out/rqvae/custom",
    output_path: str = "out/custom/semantic_ids.npy",
) -> Path:
    """Write int64 [num_items, vae_n_layers + 1], every row unique, in the order of the embeddings.

    `pretrained_model_path` is a tokenizer's folder, a `.pt` file or a hub id; `dataset_folder` is where
    `item_embeddings.npy` lies. Returns `output_path`.
    """
    model = load_tokenizer(pretrained_model_path).model
    codes_NL = model.semantic_ids(read_embeddings(Path(dataset_folder)).vectors).numpy()
    rows = np.concatenate([codes_NL, deduplicate(codes_NL)[:, None]], axis=1)
    path = Path(output_path)
    with atomic_write(path) as file:
        np.save(file, rows)
    log(f"{len(rows)} semantic IDs of {rows.shape[1]} codes are in {path}.")
    return path
