"""Trains on the tiny dataset; is killed at random moments and restarted until it is finished.

    python -m tests.training.killed RUN KILLS SEED

RUN holds the artefacts of `write_inputs`. A process that has loaded the packages forks one that trains, so that a
start takes no time, and kills it with SIGKILL.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from rqrec.models.decoder_only import DecoderOnlyConfig
from rqrec.stages.train_decoder import train_decoder
from rqrec.stages.train_rqvae import train_rqvae
from rqrec.tokenizer.rqvae import RqVaeConfig
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.checkpoint import CheckpointConfig
from rqrec.training.loop import LoopConfig
from tests.tiny import DIM


def tokenizer(run: Path) -> None:
    """With resets of dead codes and random sampling of codes."""
    config = RqVaeConfig(DIM, 8, (16,), 8, 2, mode="GUMBEL_SOFTMAX")  # type: ignore[arg-type]
    settings = LoopConfig(iterations=120, warmup=5, log_every=3, full_eval_every=40, seed=1)
    checkpoints = CheckpointConfig(run / "tokenizer", save_model_every=5)
    train_rqvae(
        run / "embeddings",
        run / "rqvae2",
        config,
        settings,
        batch_size=16,
        reset_every=8,
        checkpoints=checkpoints,
    )


def retrieval(run: Path) -> None:
    """With dropout, averaged weights and a best validation that is not the last."""
    settings = LoopConfig(
        iterations=90,
        learning_rate=5e-3,
        warmup=10,
        log_every=3,
        full_eval_every=30,
        partial_eval_every=15,
        ema_decay=0.9,
        seed=1,
    )
    table = SemanticIdTable.read(run / "semantic_ids")
    config = DecoderOnlyConfig(table.level_sizes, 5, 16, 16, 2, 1, attn_dropout=0.2)
    checkpoints = CheckpointConfig(run / "decoder", save_model_every=4)
    train_decoder(
        run / "dataset",
        run / "semantic_ids",
        run / "retrieval2",
        config,
        settings,
        batch_size=16,
        checkpoints=checkpoints,
    )


def train(run: Path) -> None:
    """Both stages; a tokenizer whose artefact exists is not trained again."""
    if not (run / "rqvae2" / "manifest.json").exists():
        tokenizer(run)
    retrieval(run)


def train_with_kills(run: Path, kills: int, rng: random.Random, max_seconds: float) -> int:
    """Train, and kill up to `kills` times, each within `max_seconds`. Returns the number of kills."""
    killed = 0
    while True:
        child = os.fork()
        if not child:
            train(run)
            os._exit(0)
        if killed < kills:
            time.sleep(rng.uniform(0, max_seconds))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
        elif status:
            sys.exit(f"training failed with status {status}")
        else:
            return killed


if __name__ == "__main__":
    folder, n_kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    begin = time.monotonic()
    if n_kills:
        print(train_with_kills(folder, n_kills, random.Random(seed), float(sys.argv[4])))
    else:
        train(folder)
        print(time.monotonic() - begin)
