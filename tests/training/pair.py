"""Trains in two processes, which it forks once the packages are loaded.

    python -m tests.training.pair FOLDER RUNS

RUNS is a JSON list of runs: the name of a training command in `TRAIN`, and its settings. FOLDER is for a file through
which the processes meet, so that no port is needed.
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing import start_processes

from rqrec.core.config import with_settings
from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
from rqrec.stages.train_rqvae import TrainRqVaeConfig, train_rqvae
from rqrec.stages.train_sasrec import TrainSasRecConfig, train_sasrec

TRAIN: dict[str, Any] = {
    "rqvae": (train_rqvae, TrainRqVaeConfig),
    "decoder": (train_decoder, TrainDecoderConfig),
    "sasrec": (train_sasrec, TrainSasRecConfig),
}


def train(command: str, settings: dict[str, Any]) -> None:
    """Run one training command."""
    stage, config = TRAIN[command]
    stage(with_settings(config(), settings))


def train_as(rank: int, folder: str, runs: list[tuple[str, dict[str, Any]]]) -> None:
    """Run all trainings as one of two processes."""
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # asked for, but not used
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/meeting", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    for run in runs:
        train(*run)
    torch.distributed.destroy_process_group()
    gc.collect()
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in threads if "gloo" in name], threads  # they may crash a process that ends


if __name__ == "__main__":
    start_processes(train_as, (sys.argv[1], json.loads(sys.argv[2])), nprocs=2, start_method="fork")
