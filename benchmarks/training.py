"""Training speed of each retrieval model, and the fraction of the machine's matrix-product throughput it reaches.

    python benchmarks/training.py [--json] [--threads 1 2] [--widths 128 256/96] [--batches 128] [--device cuda]
    torchrun --standalone --nproc_per_node 2 benchmarks/training.py --threads 1    # half a batch each

The data are synthetic sequences of the size of Amazon Beauty (22,363 users, 12,101 items, 153,776 training
interactions), in windows of 21 items, with semantic IDs of 3 levels of 256 codes and the deduplication level.
A row is the median of several steps (forward, backward, clipping, optimizer); the data path (windows and their
codes) is timed separately.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from rqrec.core.device import device_of
from rqrec.models.architectures import ARCHITECTURES, architecture
from rqrec.models.retrieval_model import parameter_count
from rqrec.training.processes import Processes
from rqrec.training.profile import LEVEL_SIZES, TRAINING_ITEMS, WARM_UP, Workload, sizes_of

MAX_ITEMS, LAYERS = 20, 2


class Row(NamedTuple):
    """One measurement; batch size and throughputs are totals over all processes."""

    architecture: str
    processes: int
    threads: int
    precision: str
    width: int
    code_width: int
    batch: int
    parameters: int
    targets_per_second: float
    """Items predicted: every item of a window, but one per window for the encoder-decoder."""
    tokens_per_second: float
    """Codes of the windows."""
    epoch_seconds: float
    """Time for all training interactions of Amazon Beauty."""
    milliseconds_per_step: float
    data_share: float
    """Time of the data path, as a fraction of the step's."""
    gflops: float
    matmul_gflops: float
    """Throughput of the fastest of several large matrix products."""
    share_of_matmul: float
    """gflops / matmul_gflops."""


def matmul_gflops(precision: str, device: torch.device) -> float:
    """Throughput in GFLOP/s of the fastest of 8 matrix products."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    is_gpu = device.type == "cuda"
    size = 8192 if is_gpu else 1024
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    times = []
    for _ in range(8):
        start = time.perf_counter()
        a @ b
        if is_gpu:
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times) / 1e9


def measure(
    name: str, precision: str, widths: tuple[int, ...], batch_size: int, steps: int, device: torch.device
) -> Row:
    config = architecture(name).config(
        LEVEL_SIZES, max_items=MAX_ITEMS, attn_layers=LAYERS, **sizes_of(*widths)
    )
    processes = Processes.join()
    # Every process draws the same windows, so that all have the same amount of work.
    share = batch_size // processes.count
    workload = Workload(config, share, precision, device)
    parameters = parameter_count(workload.model)
    if processes.count > 1:
        workload.model = DistributedDataParallel(workload.model)
    for number in range(WARM_UP):
        with FlopCounterMode(display=False) as counter:
            batch = workload.step(number)
        flops_per_code = counter.get_total_flops() / batch.codes_BTL.numel()
    data, seconds, items, rows, flops = [], [], [], [], []
    for number in range(WARM_UP, WARM_UP + steps):
        start = time.perf_counter()
        workload.batch(number)
        data_ready = time.perf_counter()
        batch = workload.step(number)
        data.append(data_ready - start)
        seconds.append(time.perf_counter() - data_ready)
        items.append(int(batch.lengths_B.sum()))
        rows.append(len(batch.lengths_B))
        flops.append(flops_per_code * batch.codes_BTL.numel())
    targets = rows if name == "encoder_decoder" else items
    gflops = statistics.median(f / s for f, s in zip(flops, seconds, strict=True)) / 1e9
    processes.wait()  # so that all of them measure at the same time
    rates = (sum(items) / sum(seconds), sum(targets) / sum(seconds), gflops, matmul_gflops(precision, device))
    items_per_second, targets_per_second, gflops, peak = processes.sums(rates)
    return Row(
        architecture=name,
        processes=processes.count,
        threads=torch.get_num_threads(),
        precision=precision,
        width=config.attn_embed_dim,
        code_width=config.decoder_embed_dim,
        batch=share * processes.count,
        parameters=parameters,
        targets_per_second=round(targets_per_second),
        tokens_per_second=round(items_per_second * len(LEVEL_SIZES)),
        epoch_seconds=round(TRAINING_ITEMS / items_per_second, 1),
        milliseconds_per_step=round(statistics.median(seconds) * 1000, 1),
        data_share=round(statistics.median(data) / statistics.median(seconds), 4),
        gflops=round(gflops, 1),
        matmul_gflops=round(peak, 1),
        share_of_matmul=round(gflops / peak, 3),
    )


def measured(options: argparse.Namespace) -> Iterator[Row]:
    for threads in options.threads:
        torch.set_num_threads(threads)
        settings = product(options.architectures, options.widths, options.batches, options.precisions)
        for name, widths, batch_size, precision in settings:
            yield measure(name, precision, widths, batch_size, options.steps, device_of(options.device))


def as_widths(text: str) -> tuple[int, ...]:
    """Widths from an argument such as 128 or 256/96."""
    width, _, code_width = text.partition("/")
    return (int(width), int(code_width)) if code_width else (int(width),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--architectures", nargs="+", default=list(ARCHITECTURES), choices=ARCHITECTURES)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--widths",
        type=as_widths,
        nargs="+",
        default=[(128,), (0,)],
        help="of the model, or model/codes such as 256/96; 0: the architecture's default",
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[128])
    parser.add_argument("--precisions", nargs="+", default=["no", "bf16"], choices=["no", "bf16"])
    parser.add_argument("--steps", type=int, default=10, help="measured steps per row")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    options = parser.parse_args()
    first = Processes.join().is_first
    as_table = first and not options.json
    if as_table:
        print(f"| {' | '.join(Row._fields)} |\n|{' --- |' * len(Row._fields)}")
    rows = []
    for row in measured(options):
        rows.append(row._asdict())
        if as_table:
            print(f"| {' | '.join(map(str, row))} |", flush=True)
    if first and options.json:
        print(json.dumps({"items": TRAINING_ITEMS, "rows": rows}))


if __name__ == "__main__":
    main()
