"""Users per second in batches and latency of one user, by architecture, catalogue size and beam width.

Weights and codes are random (codes unevenly, 4 levels of 256), which hardly changes the work.
`t5_generate` is Hugging Face's T5 with the sizes of encoder_decoder. It is slow, so it is measured only with the
smallest catalogue, few repetitions and small batches.

    python benchmarks/decoding.py --json
    python benchmarks/decoding.py --architectures hierarchical --items 12101 --beams 50 --seconds 3
    python benchmarks/decoding.py --architectures hierarchical --device cuda --batch 1024
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import NamedTuple

# Set before torch loads, so that threads do not spin while they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from rqrec.core.device import device_of
from rqrec.data.ids import IdMap
from rqrec.data.sequences import Histories
from rqrec.models.architectures import ARCHITECTURES, build_model
from rqrec.models.retrieval_model import parameter_count
from rqrec.retrieval.retriever import Retriever
from rqrec.tokenizer.semantic_ids import SemanticIdTable

LEVEL_SIZES = (256, 256, 256, 256)
HISTORY = 20  # items
T5 = "t5_generate"
T5_BATCH, T5_REPEATS = 8, 2


def random_table(n_items: int) -> SemanticIdTable:
    """Unique tuples of codes, with low codes more frequent."""
    rng = np.random.default_rng(0)
    drawn = (256 * rng.random((n_items + n_items // 10, 4)) ** 1.5).astype(np.int64)
    codes_NL = rng.permutation(np.unique(drawn, axis=0))[:n_items]
    return SemanticIdTable(IdMap([str(item) for item in range(len(codes_NL))]), codes_NL, LEVEL_SIZES, "")


class Times(NamedTuple):
    """Seconds of each call: wall-clock, and CPU time of all cores, which other processes disturb less."""

    wall: np.ndarray
    cpu: np.ndarray


def times_of(call: Callable[[], object], budget: float, min_repeats: int = 5) -> Times:
    """Repeat a call for about `budget` seconds, at least `min_repeats` times, after one warm-up call."""
    call()
    wall: list[float] = []
    cpu: list[float] = []
    while len(wall) < min_repeats or sum(wall) < budget:
        start, start_cpu = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return Times(np.array(wall), np.array(cpu))


Recommend = Callable[[np.ndarray, int], object]


def ours(
    name: str, table: SemanticIdTable, beam: int, device: torch.device
) -> tuple[torch.nn.Module, Recommend]:
    model = build_model(ARCHITECTURES[name].config(LEVEL_SIZES)).eval().to(device)
    retriever = Retriever(model, table, beam, device)
    return model, lambda items_BT, k: retriever.recommend(Histories(items_BT), k).items.cpu()


def t5(table: SemanticIdTable, beam: int) -> tuple[torch.nn.Module, Recommend]:
    from t5_generate import T5Generate

    generator = T5Generate(table, beam)
    return generator.model, generator.recommend


def measure(
    name: str, table: SemanticIdTable, beam: int, batch: int, budget: float, device: torch.device
) -> dict[str, object]:
    """One row: throughput at `batch` users, latency of one."""
    torch.manual_seed(0)
    if name == T5:
        batch, min_repeats = min(batch, T5_BATCH), T5_REPEATS
        model, recommend = t5(table, beam)
    else:
        min_repeats = 5
        model, recommend = ours(name, table, beam, device)
    items_BT = np.random.default_rng(1).integers(0, len(table), (batch, HISTORY))
    many = times_of(lambda: recommend(items_BT, min(10, beam)), budget, min_repeats)
    single = times_of(lambda: recommend(items_BT[:1], min(10, beam)), budget, min_repeats)
    return {
        "architecture": name,
        "parameters": parameter_count(model),
        "items": len(table),
        "beam": beam,
        "batch": batch,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "users_per_second": round(batch / float(np.median(many.wall)), 1),
        "cpu_ms_per_user": round(1e3 * float(np.median(many.cpu)) / batch, 2),
        "p50_ms": round(1e3 * float(np.median(single.wall)), 2),
        "p99_ms": round(1e3 * float(np.quantile(single.wall, 0.99)), 2),
        "cpu_ms_of_one": round(1e3 * float(np.median(single.cpu)), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--architectures", nargs="+", default=[*ARCHITECTURES, T5], choices=[*ARCHITECTURES, T5]
    )
    parser.add_argument("--items", nargs="+", type=int, default=[12_101, 100_000, 1_000_000])
    parser.add_argument("--beams", nargs="+", type=int, default=[10, 50, 100])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", type=int, default=64, help="users in a batch")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="budget for each of the two measurements of a row"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1; T5 stays on the CPU")
    args = parser.parse_args()
    rows, device = [], device_of(args.device)
    for n_items in args.items:
        table = random_table(n_items)
        for threads in args.threads:
            torch.set_num_threads(threads)
            for name in args.architectures:
                if name == T5 and n_items > min(args.items):
                    continue
                for beam in args.beams:
                    rows.append(measure(name, table, beam, args.batch, args.seconds, device))
                    if not args.json:
                        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if args.json:
        print(json.dumps({"history": HISTORY, "batch": args.batch, "rows": rows}))


if __name__ == "__main__":
    main()
