"""Users per second in batches and latency of one user, by architecture, catalogue and beam width.

The weights are random, and so are the codes (unevenly, 4 levels of 256): neither changes the work much.

    python benchmarks/decoding.py --json
    python benchmarks/decoding.py --architectures hierarchical --items 12101 --beams 50 --seconds 3
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads: threads don't spin while they wait

import numpy as np
import torch

from rqrec.data.ids import IdMap
from rqrec.data.sequences import Histories
from rqrec.retrieval.architectures import ARCHITECTURES, build_model
from rqrec.retrieval.model import parameter_count
from rqrec.retrieval.retriever import Retriever
from rqrec.tokenizer.semantic_ids import SemanticIdTable

LEVEL_SIZES = (256, 256, 256, 256)
HISTORY = 20  # items


def random_table(n_items: int) -> SemanticIdTable:
    """Unique tuples of codes, of which low ones are more frequent."""
    rng = np.random.default_rng(0)
    drawn = (256 * rng.random((n_items + n_items // 10, 4)) ** 1.5).astype(np.int64)
    codes_NL = rng.permutation(np.unique(drawn, axis=0))[:n_items]
    return SemanticIdTable(IdMap([str(item) for item in range(len(codes_NL))]), codes_NL, LEVEL_SIZES, "")


class Times(NamedTuple):
    """Seconds of each call: on the clock, and of all cores' work, which other processes disturb less."""

    wall: np.ndarray
    cpu: np.ndarray


def times_of(call: Callable[[], object], budget: float) -> Times:
    """Repeated calls for about `budget` seconds, at least five, after one that is not counted."""
    call()
    wall: list[float] = []
    cpu: list[float] = []
    while len(wall) < 5 or sum(wall) < budget:
        start, start_cpu = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return Times(np.array(wall), np.array(cpu))


def measure(name: str, table: SemanticIdTable, beam: int, batch: int, budget: float) -> dict[str, object]:
    """One row: throughput at `batch` users, latency of one."""
    torch.manual_seed(0)
    model = build_model(ARCHITECTURES[name].config(LEVEL_SIZES)).eval()
    retriever = Retriever(model, table, beam)
    items_BT = np.random.default_rng(1).integers(0, len(table), (batch, HISTORY))
    everyone, one = Histories(items_BT), Histories(items_BT[:1])
    many = times_of(lambda: retriever.recommend(everyone, min(10, beam)), budget)
    single = times_of(lambda: retriever.recommend(one, min(10, beam)), budget)
    return {
        "architecture": name,
        "parameters": parameter_count(model),
        "items": len(table),
        "beam": beam,
        "threads": torch.get_num_threads(),
        "users_per_second": round(batch / float(np.median(many.wall)), 1),
        "cpu_ms_per_user": round(1e3 * float(np.median(many.cpu)) / batch, 2),
        "p50_ms": round(1e3 * float(np.median(single.wall)), 2),
        "p99_ms": round(1e3 * float(np.quantile(single.wall, 0.99)), 2),
        "cpu_ms_of_one": round(1e3 * float(np.median(single.cpu)), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--architectures", nargs="+", default=list(ARCHITECTURES), choices=list(ARCHITECTURES)
    )
    parser.add_argument("--items", nargs="+", type=int, default=[12_101, 100_000, 1_000_000])
    parser.add_argument("--beams", nargs="+", type=int, default=[10, 50, 100])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", type=int, default=64, help="users of a batch")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each of the two figures of a row")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    rows = []
    for n_items in chosen.items:
        table = random_table(n_items)
        for threads in chosen.threads:
            torch.set_num_threads(threads)
            for name in chosen.architectures:
                for beam in chosen.beams:
                    rows.append(measure(name, table, beam, chosen.batch, chosen.seconds))
                    if not chosen.json:
                        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if chosen.json:
        print(json.dumps({"history": HISTORY, "batch": chosen.batch, "rows": rows}))


if __name__ == "__main__":
    main()
