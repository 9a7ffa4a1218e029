"""Throughput per core and memory per item, and an estimate of the cost for larger sizes.

Each part runs in a separate process with one thread. Rates are per second of CPU time, which depends little on
other programs on the machine; memory is the size of the arrays, peak memory that of the process. Weights, codes
and embeddings are random, which affects neither.

    python benchmarks/scale.py --json
    python benchmarks/scale.py --parts trie search --catalogs 100000
    python benchmarks/scale.py --plan scale.json --items 100e6 --users 1e9     # only the estimate

Takes about five minutes on one core. The text encoder requires the extra `demo`.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# Must be set before the libraries are imported, also in child processes.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["POLARS_MAX_THREADS"] = "1"

import numpy as np
import polars as pl
import torch

from rqrec.data.encoders import PACKAGED_MODEL, load_encoder
from rqrec.data.ids import IdMap
from rqrec.data.sequences import Histories
from rqrec.models.architectures import ARCHITECTURES, build_model
from rqrec.models.retrieval_model import CodeLookup
from rqrec.models.sasrec import SasRec, SasRecConfig
from rqrec.retrieval.constraints import Constraints
from rqrec.retrieval.experts import DenseExpert
from rqrec.retrieval.retriever import Retriever
from rqrec.retrieval.vector_index import VectorIndex
from rqrec.serving.batch import BATCH
from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig
from rqrec.tokenizer.semantic_ids import SemanticIdTable, deduplicate
from rqrec.tokenizer.trie import Trie
from rqrec.training.optim import adamw

DIM = 384  # of the embeddings
HISTORY = 20  # items of a user
LEVEL_SIZES = (256, 256, 256, 256)
STRING_VIEW = 16  # bytes of a string in polars, including its content up to 12 bytes
EPOCHS = 3  # of training, in the estimate
TOKENIZER_STEPS = 20_000  # with batches of 1,024, whatever the number of items


def rate(work: Callable[[], int], seconds: float) -> float:
    """Units per second of CPU time; `work` returns the number of units done. The first call is a warm-up."""
    work()
    units, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        units += work()
    return round(units / (time.process_time() - start), 1)


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    made = work()
    return time.process_time() - start, made


def bytes_of(*tensors: torch.Tensor) -> int:
    """Memory of tensors; shared storage counts once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def random_codes(n_items: int) -> np.ndarray:
    """Unique rows int64 [N, 4] below 256; lower codes are more frequent."""
    rng = np.random.default_rng(0)
    drawn = (256 * rng.random((n_items + n_items // 10, 4), dtype=np.float32) ** 1.5).astype(np.uint8)
    numbers = rng.permutation(np.unique(drawn.view(np.uint32)))[:n_items]
    return numbers.view(np.uint8).reshape(-1, 4).astype(np.int64)


def item_ids(n_items: int) -> pl.Series:
    """Ids of ten characters, like Amazon's."""
    return pl.select(pl.format("B{}", pl.int_range(n_items).cast(pl.String).str.zfill(9))).to_series()


def text(seconds: float, _: int) -> dict[str, Any]:
    encoder = load_encoder(PACKAGED_MODEL, "cpu")
    words = np.random.default_rng(0).choice(["blue", "steel", "kettle", "for", "two", "litres"], (64, 24))
    texts = [" ".join(row) for row in words]
    return {
        "encoder": PACKAGED_MODEL,
        "texts_per_second": rate(lambda: len(encoder.encode(texts, batch_size=64)), seconds),
    }


def tokenizer(seconds: float, _: int) -> dict[str, Any]:
    torch.manual_seed(0)
    model = RqVae(RqVaeConfig(DIM))
    x_BI = torch.randn(1024, DIM)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> int:
        optimizer.zero_grad()
        model(x_BI).loss.backward()
        optimizer.step()
        return 1

    trained = rate(step, seconds)
    model.eval()
    x_NI = torch.randn(8192, DIM)
    return {
        "steps_per_second": trained,
        "items_tokenized_per_second": rate(lambda: len(model.semantic_ids(x_NI)), seconds),
    }


def dedup(_: float, n_items: int) -> dict[str, Any]:
    codes_NL = np.random.default_rng(0).integers(0, 256, (n_items, 3))
    seconds, extra_N = seconds_of(lambda: deduplicate(codes_NL))
    return {"items": n_items, "seconds": round(seconds, 2), "largest_group": int(extra_N.max()) + 1}


def trie(_: float, n_items: int) -> dict[str, Any]:
    codes_NL = random_codes(n_items)
    seconds, made = seconds_of(lambda: Trie.build(codes_NL))
    tensors = [made.item_of_leaf, made.leaf_of_item]
    for depth in made.depths:
        tensors += [depth.leaf_start, depth.first_child, depth.code, depth.n_items, depth.first_item]
    ids = item_ids(n_items)
    ids_seconds, id_map = seconds_of(lambda: IdMap(ids))
    index_bytes = id_map._sorted_hashes.nbytes + id_map._index_of_hash.nbytes
    return {
        "items": n_items,
        "trie_seconds": round(seconds, 2),
        "trie_bytes_per_item": round(bytes_of(*tensors) / n_items, 1),
        "codes_bytes_per_item": round(codes_NL.nbytes / n_items, 1),
        "ids_seconds": round(ids_seconds, 2),
        "ids_bytes_per_item": round(index_bytes / n_items + STRING_VIEW, 1),
    }


def search(seconds: float, n_items: int) -> dict[str, Any]:
    table = SemanticIdTable(IdMap(item_ids(n_items)), random_codes(n_items), LEVEL_SIZES, "")
    items_BT = np.random.default_rng(1).integers(0, n_items, (BATCH, HISTORY))
    rates = {}
    for name in ARCHITECTURES:
        torch.manual_seed(0)
        retriever = Retriever(build_model(ARCHITECTURES[name].config(LEVEL_SIZES)).eval(), table, 50)

        def recommend(retriever: Retriever = retriever) -> int:
            return len(retriever.recommend(Histories(items_BT), 20).items)

        rates[name] = rate(recommend, seconds)
    return {"items": n_items, "beam": 50, "users_per_second": rates}


def dense(seconds: float, n_items: int) -> dict[str, Any]:
    """A dense expert that scores every item, and with an index, whose item vectors lie in clusters."""
    torch.manual_seed(0)
    model = SasRec(SasRecConfig(n_items)).eval()
    spread_D = 0.3 / (1 + torch.arange(model.config.width)).sqrt()
    with torch.no_grad():
        model.items.weight.normal_().mul_(0.5 * spread_D)
        centres_CD = torch.randn(2000, len(spread_D)) * spread_D
        model.items.weight += centres_CD[torch.randint(len(centres_CD), (n_items,))]
    histories = Histories(np.random.default_rng(1).integers(0, n_items, (BATCH, HISTORY)))
    build_seconds, index = seconds_of(lambda: VectorIndex.of(model))

    def users_per_second(expert: DenseExpert) -> float:
        def propose() -> int:
            return len(expert.propose(histories, 50, Constraints()).ranked.items)

        return rate(propose, seconds)

    return {
        "items": n_items,
        "users_per_second": users_per_second(DenseExpert(model)),
        "users_per_second_with_index": users_per_second(DenseExpert(model, index)),
        "index_seconds": round(build_seconds, 1),
        "index_recall": round(index.recall, 3),
    }


def training(seconds: float, _: int) -> dict[str, Any]:
    rates = {}
    rng = np.random.default_rng(0)
    codes_NL = random_codes(10_000)
    lookup, trie = CodeLookup.from_codes(codes_NL), Trie.build(codes_NL)
    batch = lookup.batch(Histories(rng.integers(0, 10_000, (128, HISTORY))), HISTORY)
    for name in ARCHITECTURES:
        torch.manual_seed(0)
        model = build_model(ARCHITECTURES[name].config(LEVEL_SIZES))
        optimizer = adamw(model, 1e-3, 0.01)

        def step(model: Any = model, optimizer: Any = optimizer) -> int:
            optimizer.zero_grad()
            model(batch, trie).total.backward()
            optimizer.step()
            return int(batch.lengths_B.sum())

        rates[name] = rate(step, seconds)
    return {"items_per_second": rates, "codes_per_item": len(LEVEL_SIZES)}


def storage(_: float, n_items: int) -> dict[str, Any]:
    """File sizes for users with 20 items in the history and 20 recommendations each."""
    users = 20_000
    rng = np.random.default_rng(0)
    ids = item_ids(n_items)

    def lists(k: int) -> pl.Series:
        drawn = ids.gather(rng.zipf(1.2, users * k).clip(max=n_items) - 1)
        return drawn.reshape((users, k)).arr.to_list()

    scores = pl.Series(np.sort(-rng.exponential(5, (users, 20)).astype(np.float32))).arr.to_list()
    user_id = pl.Series([f"user {n}" for n in rng.permutation(users)])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.parquet"
        pl.DataFrame({"user_id": user_id, "history": lists(HISTORY)}).write_parquet(path)
        history = path.stat().st_size / users
        pl.DataFrame({"user_id": user_id, "item_ids": lists(20), "scores": scores}).write_parquet(path)
        recommended = path.stat().st_size / users
    return {
        "history_bytes_per_user": round(history, 1),
        "recommendation_bytes_per_user": round(recommended, 1),
        "sequence_bytes_per_interaction": np.dtype(np.int32).itemsize + np.dtype(np.int64).itemsize,
    }


PARTS: dict[str, Callable[[float, int], dict[str, Any]]] = {
    "text": text,
    "tokenizer": tokenizer,
    "dedup": dedup,
    "trie": trie,
    "search": search,
    "dense": dense,
    "training": training,
    "storage": storage,
}
BY_CATALOG = ("trie", "search", "dense")


def run_part(name: str, seconds: float, n_items: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    made = PARTS[name](seconds, n_items)
    return made | {"peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2, 2)}


def measure(parts: list[str], catalogs: list[int], tuples: int, seconds: float) -> dict[str, Any]:
    """Run each part in a new process, to measure its own peak memory."""
    work = [(part, n) for part in parts for n in (catalogs if part in BY_CATALOG else [tuples])]
    results: dict[str, Any] = {"threads": 1, "seconds_per_rate": seconds}
    for part, n_items in work:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            made = pool.submit(run_part, part, seconds, n_items).result()
        print(part, made, file=sys.stderr, flush=True)
        if part in BY_CATALOG:
            results.setdefault(part, []).append(made)
        else:
            results[part] = made
    return results


def plan(measured: dict[str, Any], n_items: float, n_users: float, interactions: float) -> dict[str, Any]:
    """Estimate core-hours and gigabytes for other sizes from measured rates."""
    largest_trie, largest_search = measured["trie"][-1], measured["search"][-1]
    name, users_per_second = max(largest_search["users_per_second"].items(), key=lambda pair: pair[1])
    hour, gb = 3600.0, 1e9
    per_item = (
        largest_trie["trie_bytes_per_item"]
        + largest_trie["codes_bytes_per_item"]
        + largest_trie["ids_bytes_per_item"]
    )
    core_hours = {
        "texts": n_items / measured["text"]["texts_per_second"] / hour,
        "training the tokenizer": TOKENIZER_STEPS / measured["tokenizer"]["steps_per_second"] / hour,
        "tokenizing": n_items / measured["tokenizer"]["items_tokenized_per_second"] / hour,
        "deduplication": measured["dedup"]["seconds"] * n_items / measured["dedup"]["items"] / hour,
        f"training {name}": EPOCHS * interactions / measured["training"]["items_per_second"][name] / hour,
        f"recommending, {name}": n_users / users_per_second / hour,
        "trie of each replica": largest_trie["trie_seconds"] * n_items / largest_trie["items"] / hour,
    }
    gigabytes = {
        "embeddings, float16": n_items * DIM * 2 / gb,
        "memory of a replica: trie, codes and ids": n_items * per_item / gb,
        "sequences": interactions * measured["storage"]["sequence_bytes_per_interaction"] / gb,
        "histories": n_users * measured["storage"]["history_bytes_per_user"] / gb,
        "recommendations": n_users * measured["storage"]["recommendation_bytes_per_user"] / gb,
    }
    return {
        "items": n_items,
        "users": n_users,
        "interactions": interactions,
        "core_hours": {key: round(value, 2) for key, value in core_hours.items()},
        "gigabytes": {key: round(value, 1) for key, value in gigabytes.items()},
    }


def tables(measured: dict[str, Any], planned: dict[str, Any] | None) -> str:
    """The tables of docs/scale.md, as Markdown."""
    lines = ["| part | figure | value |", "| --- | --- | --- |"]
    for part in PARTS:
        for made in [measured[part]] if isinstance(measured.get(part), dict) else measured.get(part, []):
            where = f"{part}, {made['items']:,} items" if part in BY_CATALOG else part
            for key, value in made.items():
                shown = (
                    ", ".join(f"{k} {v:,}" for k, v in value.items()) if isinstance(value, dict) else value
                )
                if key != "items" or part not in BY_CATALOG:
                    lines.append(f"| {where} | {key.replace('_', ' ')} | {shown} |")
    if planned is not None:
        sizes = "{items:,.0f} items, {users:,.0f} users, {interactions:,.0f} interactions".format(**planned)
        lines += ["", f"{sizes}:", "", "| stage | core-hours |", "| --- | --- |"]
        lines += [f"| {key} | {value:,} |" for key, value in planned["core_hours"].items()]
        lines += ["", "| data | GB |", "| --- | --- |"]
        lines += [f"| {key} | {value:,} |" for key, value in planned["gigabytes"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--catalogs", nargs="+", type=int, default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--tuples", type=int, default=10_000_000, help="number of tuples to deduplicate")
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of each rate measurement")
    parser.add_argument("--plan", type=Path, help="use the measurements of an earlier --json from this file")
    parser.add_argument("--items", type=float, default=100e6, help="for the estimate")
    parser.add_argument("--users", type=float, default=1e9, help="for the estimate")
    parser.add_argument("--interactions", type=float, help="for the estimate; default: 20 per user")
    chosen = parser.parse_args()
    if chosen.plan:
        measured = json.loads(chosen.plan.read_text())["measured"]
    else:
        measured = measure(chosen.parts, sorted(chosen.catalogs), chosen.tuples, chosen.seconds)
    complete = all(part in measured for part in PARTS)
    interactions = chosen.interactions or HISTORY * chosen.users
    planned = plan(measured, chosen.items, chosen.users, interactions) if complete else None
    print(json.dumps({"measured": measured, "plan": planned}) if chosen.json else tables(measured, planned))


if __name__ == "__main__":
    main()
