"""Trains on the tiny dataset; is killed at random moments and restarted until it is finished.

    python -m tests.training.killed RUN KILLS SEED

RUN holds the artefacts of `write_inputs`. A process that has loaded the packages forks one that trains, so that a
restart is fast, and kills it with SIGKILL.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
from rqrec.stages.train_rqvae import TrainRqVaeConfig, train_rqvae
from rqrec.training.checkpoint import CheckpointConfig
from rqrec.training.loop_config import LoopConfig

TOKENIZER, DECODER = "killed_tokenizer", "killed_decoder"  # folders of the two runs


def train(run: Path) -> None:
    """Both trainings: with resets of dead codes, random sampling of codes, dropout and averaged weights."""
    train_rqvae(
        TrainRqVaeConfig(
            loop=LoopConfig(iterations=120, warmup=5, log_every=3, full_eval_every=40, seed=1),
            checkpoints=CheckpointConfig(run / TOKENIZER, save_model_every=5),
            rqvae={
                "embed_dim": 8,
                "hidden_dims": (16,),
                "codebook_size": 8,
                "n_layers": 2,
                "mode": "GUMBEL_SOFTMAX",
            },
            batch_size=16,
            reset_dead_codes_every=8,
        ),
        embeddings=run / "embeddings",
    )
    train_decoder(
        TrainDecoderConfig(
            loop=LoopConfig(
                iterations=90,
                learning_rate=5e-3,
                warmup=10,
                log_every=3,
                full_eval_every=30,
                partial_eval_every=15,
                model_ema_decay=0.9,
                seed=1,
            ),
            checkpoints=CheckpointConfig(run / DECODER, save_model_every=4),
            model={
                "max_items": 5,
                "decoder_embed_dim": 16,
                "attn_embed_dim": 16,
                "attn_heads": 2,
                "attn_layers": 1,
                "attn_dropout": 0.2,
            },
            batch_size=16,
        ),
        dataset=run / "dataset",
        semantic_ids=run / "semantic_ids",
    )


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
