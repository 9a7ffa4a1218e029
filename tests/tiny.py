"""A small world whose next item is known: items come in families, and users walk through one family in order."""

from pathlib import Path

import numpy as np
import polars as pl

from rqrec.core.artifact import create, read_manifest
from rqrec.data.catalog import Catalog
from rqrec.data.dataset import Dataset
from rqrec.data.interactions import Interactions
from rqrec.models.architectures import architecture
from rqrec.stages.tokenize import tokenize
from rqrec.stages.train_decoder import train_decoder
from rqrec.stages.train_rqvae import train_rqvae
from rqrec.tokenizer.rqvae import RqVaeConfig
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.loop import LoopConfig

FAMILIES, SIZE, DIM = 6, 8, 16
N_ITEMS = FAMILIES * SIZE


def tiny_dataset(n_users: int = 480) -> Dataset:
    """User u starts at a random place of family u mod FAMILIES and takes the items after it, in a circle."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(n_users):
        family, start = user % FAMILIES, int(rng.integers(SIZE))
        for step in range(int(rng.integers(4, SIZE))):
            item = family * SIZE + (start + step) % SIZE
            rows.append((f"user {user}", f"item {item}", user + 1000 * step))
    ids = [f"item {item}" for item in range(N_ITEMS)]
    titles = [f"Title {item}" for item in range(N_ITEMS)]
    catalog = Catalog(pl.DataFrame({"item_id": ids, "title": titles, "text": titles}))
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return Dataset.from_interactions(catalog, Interactions(log))


def tiny_vectors() -> np.ndarray:
    """Items of a family lie together."""
    rng = np.random.default_rng(1)
    centres = np.repeat(rng.normal(size=(FAMILIES, DIM)), SIZE, axis=0)
    return (centres + 0.3 * rng.normal(size=(N_ITEMS, DIM))).astype(np.float32)


def write_inputs(run: Path) -> None:
    """The artefacts "dataset" and "embeddings" in the folder of a run."""
    tiny_dataset().write(run / "dataset", {"source": "tiny"}, {})
    inputs = {"dataset": read_manifest(run / "dataset", "dataset").hash}
    with create(run / "embeddings", "embeddings", settings={"model": "tiny"}, inputs=inputs) as target:
        np.save(target / "item_embeddings.npy", tiny_vectors())


def train_tiny(run: Path, *, seed: int = 0, iterations: int = 400, name: str = "decoder_only") -> None:
    """All stages up to "retrieval", in seconds."""
    write_inputs(run)
    config = RqVaeConfig(input_dim=DIM, embed_dim=8, hidden_dims=(16,), codebook_size=8, n_layers=2)
    settings = LoopConfig(iterations=60, warmup=5, seed=seed)
    train_rqvae(run / "embeddings", run / "rqvae", config, settings, batch_size=16)
    item_ids = Dataset.read(run / "dataset").catalog.id_map
    tokenize(run / "rqvae", run / "embeddings", item_ids, run / "semantic_ids")
    train_decoder(
        run / "dataset",
        run / "semantic_ids",
        run / "retrieval",
        architecture(name).config(
            SemanticIdTable.read(run / "semantic_ids").level_sizes, 8, 32, 32, 2, 2, attn_dropout=0.0
        ),
        LoopConfig(iterations=iterations, learning_rate=5e-3, warmup=10, full_eval_every=50, seed=seed),
        batch_size=32,
    )
