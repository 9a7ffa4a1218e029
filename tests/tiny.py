"""A tiny dataset whose next item is known: items form families, and each user goes through one family in order."""

from pathlib import Path

import numpy as np
import polars as pl

from rqrec.core.artifact import create, read_manifest
from rqrec.data.catalog import Catalog
from rqrec.data.dataset import Dataset
from rqrec.data.interactions import Interactions
from rqrec.stages.join import JoinConfig, join
from rqrec.stages.tokenize import TokenizeConfig, tokenize
from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
from rqrec.stages.train_rqvae import TrainRqVaeConfig, train_rqvae
from rqrec.stages.train_sasrec import TrainSasRecConfig, train_sasrec
from rqrec.training.checkpoint import CheckpointConfig
from rqrec.training.loop_config import LoopConfig

FAMILIES, SIZE, DIM = 6, 8, 16
N_ITEMS = FAMILIES * SIZE


def tiny_dataset(n_users: int = 480) -> Dataset:
    """User u starts at a random item of family u mod FAMILIES and continues through its items cyclically."""
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
    """Vectors that are close for items of the same family."""
    rng = np.random.default_rng(1)
    centres = np.repeat(rng.normal(size=(FAMILIES, DIM)), SIZE, axis=0)
    return (centres + 0.3 * rng.normal(size=(N_ITEMS, DIM))).astype(np.float32)


def write_inputs(run: Path) -> None:
    """The artefacts "dataset" and "embeddings" in a run folder."""
    tiny_dataset().write(run / "dataset", {"source": "tiny"}, {})
    inputs = {"dataset": read_manifest(run / "dataset", "dataset").hash}
    with create(run / "embeddings", "embeddings", settings={"model": "tiny"}, inputs=inputs) as target:
        np.save(target / "item_embeddings.npy", tiny_vectors())


def train_tiny(run: Path, *, seed: int = 0, iterations: int = 400, name: str = "decoder_only") -> None:
    """All stages up to "retrieval", in seconds."""
    write_inputs(run)
    tokenizer = train_rqvae(
        TrainRqVaeConfig(
            loop=LoopConfig(iterations=60, warmup=5, seed=seed),
            checkpoints=CheckpointConfig(run / "tokenizer"),
            rqvae={"embed_dim": 8, "hidden_dims": (16,), "codebook_size": 8, "n_layers": 2},
            batch_size=16,
            reset_dead_codes_every=0,
        ),
        embeddings=run / "embeddings",
    )
    tokenize(TokenizeConfig(), tokenizer, run / "embeddings", run / "semantic_ids", dataset=run / "dataset")
    train_decoder(
        TrainDecoderConfig(
            loop=LoopConfig(
                iterations=iterations, learning_rate=5e-3, warmup=10, full_eval_every=50, seed=seed
            ),
            checkpoints=CheckpointConfig(run),
            architecture=name,
            model={
                "max_items": 8,
                "decoder_embed_dim": 32,
                "attn_embed_dim": 32,
                "attn_heads": 2,
                "attn_layers": 2,
                "attn_dropout": 0.0,
            },
            batch_size=32,
        ),
        dataset=run / "dataset",
        semantic_ids=run / "semantic_ids",
    )


def join_tiny(run: Path, tiny_run: Path) -> None:
    """A "retrieval" artefact of four experts: codes (that of `tiny_run`), codes_2, dense and neighbours."""
    write_inputs(run)
    train_tiny(run / "second", iterations=60, name="hierarchical")
    train_sasrec(
        TrainSasRecConfig(
            loop=LoopConfig(iterations=60, warmup=5),
            checkpoints=CheckpointConfig(run / "sasrec"),
            model={"width": 16, "max_items": 8},
        ),
        dataset=run / "dataset",
    )
    join(
        JoinConfig(beam_width=10, validation_users=100),
        [tiny_run, run / "second" / "retrieval", run / "sasrec"],
        run / "dataset",
        run / "retrieval",
        embeddings=run / "embeddings",
    )
