"""How fast a retrieval model trains on this machine, and what share of the machine's matrix products that is.

    python benchmarks/training.py [--json] [--threads 1 2] [--widths 128 256] [--batches 128]

Synthetic sequences of Beauty's size (22,363 users, 12,101 items, 8.9 interactions a user on average), windows of
20 items, semantic IDs of 3 x 256 codes and one that makes them unique. A row is the median of several steps:
forward, backward, clipping, optimizer; the data path (windows and their codes) is timed on its own.
"""

import argparse
import json
import statistics
import time
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from rqrec.data.sequences import Sequences
from rqrec.retrieval.decoder_only import DecoderOnly, DecoderOnlyConfig
from rqrec.retrieval.model import CodeLookup, parameter_count
from rqrec.training.optim import adamw
from rqrec.training.speed import autocast
from rqrec.training.windows import Windows

USERS, ITEMS, MEAN_LENGTH, MAX_ITEMS = 22_363, 12_101, 7, 20
LEVEL_SIZES = (256, 256, 256, 16)
CPU = torch.device("cpu")


class Row(NamedTuple):
    """One measurement. Speeds are of target codes a second; shares are 0 to 1."""

    architecture: str
    threads: int
    precision: str
    width: int
    batch: int
    parameters: int
    codes_per_second: float
    items_per_second: float
    milliseconds_per_step: float
    data_share: float
    gflops: float
    matmul_gflops: float
    share_of_matmul: float


def sequences() -> Sequences:
    rng = np.random.default_rng(0)
    lengths = 1 + rng.geometric(1 / (MEAN_LENGTH - 1), USERS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = rng.integers(0, ITEMS, offsets[-1]).astype(np.int32)
    return Sequences(items, offsets, np.zeros(len(items), np.int64), tuple(map(str, range(USERS))))


def matmul_gflops(precision: str, size: int = 1024) -> float:
    """Billions of floating-point operations a second in the best of some matrix products."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times) / 1e9


def measure(train: Sequences, precision: str, width: int, batch_size: int, steps: int) -> Row:
    torch.manual_seed(0)
    config = DecoderOnlyConfig(LEVEL_SIZES, MAX_ITEMS, width, width, 4, 4)
    model = DecoderOnly(config)
    optimizer = adamw(model, 1e-3, 0.01)
    windows = Windows(train, MAX_ITEMS, batch_size, seed=0)
    codes_NL = np.random.default_rng(0).integers(0, LEVEL_SIZES, (ITEMS, len(LEVEL_SIZES)))
    lookup = CodeLookup.of(codes_NL)
    windows.batch(0)  # deals out the first epoch, once for hundreds of steps
    data, learning, items, operations = [], [], [], []
    for step in range(steps + 2):
        start = time.perf_counter()
        batch = lookup.batch(windows.histories(step), MAX_ITEMS)
        dealt = time.perf_counter()
        counter = FlopCounterMode(display=False)
        with counter if step < 2 else nullcontext():
            with autocast(precision, CPU):
                loss = model(batch).total
            loss.backward()
        if step < 2:  # these count, and warm up
            per_code = counter.get_total_flops() / batch.codes_BTL.numel()
            optimizer.zero_grad()
            continue
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        data.append(dealt - start)
        learning.append(time.perf_counter() - dealt)
        items.append(int(batch.lengths_B.sum()))
        operations.append(per_code * batch.codes_BTL.numel())
    seconds = statistics.median(d + s for d, s in zip(data, learning, strict=True))
    per_second = statistics.median(n / (d + s) for n, d, s in zip(items, data, learning, strict=True))
    gflops = statistics.median(f / s for f, s in zip(operations, learning, strict=True)) / 1e9
    peak = matmul_gflops(precision)
    return Row(
        architecture="decoder_only",
        threads=torch.get_num_threads(),
        precision=precision,
        width=width,
        batch=batch_size,
        parameters=parameter_count(model),
        codes_per_second=round(per_second * len(LEVEL_SIZES)),
        items_per_second=round(per_second),
        milliseconds_per_step=round(seconds * 1000, 1),
        data_share=round(sum(data) / (sum(data) + sum(learning)), 4),
        gflops=round(gflops, 1),
        matmul_gflops=round(peak, 1),
        share_of_matmul=round(gflops / peak, 3),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--widths", type=int, nargs="+", default=[128])
    parser.add_argument("--batches", type=int, nargs="+", default=[128])
    parser.add_argument("--precisions", nargs="+", default=["no", "bf16"], choices=["no", "bf16"])
    parser.add_argument("--steps", type=int, default=10, help="measured steps of each row")
    options = parser.parse_args()
    train, rows = sequences(), list[dict[str, Any]]()
    for threads in options.threads:
        torch.set_num_threads(threads)
        for width in options.widths:
            for batch_size in options.batches:
                for precision in options.precisions:
                    row = measure(train, precision, width, batch_size, options.steps)._asdict()
                    rows.append(row)
                    if not options.json:
                        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if options.json:
        print(json.dumps({"items": len(train.items), "rows": rows}))


if __name__ == "__main__":
    main()
