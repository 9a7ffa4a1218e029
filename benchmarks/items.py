"""How long it takes to add and remove items of a catalogue that is served, beside encoding their texts.

For each size, a model with a hierarchical codes model, SASRec and neighbours is written with random weights and
vectors. Then, in the same process: read it, add many items, add one, remove one, and read it again; and what a
service does at its start and after each change: make a recommender of it and index the catalogue for its searches.

    python benchmarks/items.py --json
    python benchmarks/items.py --items 10000 100000 --new 10000

At a million items it takes about five minutes, 15 GB of memory and 2 GB of disk.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import polars as pl
import torch

from rqrec.core.artifact import create
from rqrec.data.catalog import Catalog
from rqrec.data.ids import IdMap
from rqrec.knn.fit import MAX_CONTENT_ITEMS
from rqrec.knn.index import KnnIndex
from rqrec.models.architectures import build_model
from rqrec.models.hierarchical import HierarchicalConfig
from rqrec.models.sasrec import SasRec, SasRecConfig
from rqrec.retrieval.artifact import RetrievalArtifact, write_retrieval
from rqrec.retrieval.ensemble import ExpertSettings
from rqrec.retrieval.item_vectors import ItemVectors, VectorSettings
from rqrec.retrieval.live_catalog import add_items, remove_items
from rqrec.retrieval.versions import VERSIONS, change, read_live
from rqrec.serving.catalog_view import CatalogView
from rqrec.serving.recommender import Recommender
from rqrec.tokenizer.loading import KeptTokenizer
from rqrec.tokenizer.rqkmeans import RqKMeans, RqKMeansConfig
from rqrec.tokenizer.semantic_ids import SemanticIdTable

DIM, CODES, LEVELS, NEIGHBOURS, SAMPLE = 384, 256, 3, 50, 4096
T = TypeVar("T")


def vectors(count: int, seed: int) -> np.ndarray:
    """Random vectors, float16 [count, DIM], made in blocks."""
    rng = np.random.default_rng(seed)
    blocks = [
        rng.standard_normal((min(65_536, count - start), DIM), dtype=np.float32).astype(np.float16)
        for start in range(0, count, 65_536)
    ]
    return np.concatenate(blocks)


def described(count: int, name: str) -> pl.DataFrame:
    """Items with titles and texts of a few words."""
    numbers = pl.select(pl.int_range(count).cast(pl.String)).to_series()
    words = pl.select(pl.format("{} kettle {} of steel", pl.lit(name), numbers)).to_series()
    return pl.DataFrame({"item_id": name + numbers, "title": words, "text": words})


def write_model(folder: Path, n_items: int) -> None:
    """A "retrieval" artefact with random weights."""
    torch.manual_seed(0)
    x_ND, rng = vectors(n_items, 0), np.random.default_rng(1)
    tokenizer = RqKMeans(RqKMeansConfig(DIM, n_layers=LEVELS, codebook_size=CODES))
    tokenizer.fit(x_ND[:SAMPLE].astype(np.float32), torch.Generator().manual_seed(0))
    catalog = Catalog(described(n_items, "B"))
    codes_NL = tokenizer.semantic_ids(x_ND).numpy()
    table = SemanticIdTable.from_codes(IdMap(catalog.items["item_id"]), codes_NL, (CODES,) * LEVELS, "random")
    model = build_model(HierarchicalConfig(table.level_sizes, content_dim=DIM, n_items=n_items))
    neighbours_NM = torch.from_numpy(rng.integers(0, n_items, (n_items, NEIGHBOURS), dtype=np.int32))
    index = KnnIndex(neighbours_NM, torch.rand(n_items, NEIGHBOURS))
    artifact = RetrievalArtifact(
        model.eval(),
        table,
        catalog,
        others={
            "dense": SasRec(SasRecConfig(n_items)).eval(),
            "neighbours": index.with_settings(content_weight=0.1 * (n_items <= MAX_CONTENT_ITEMS)),
        },
        settings={
            "codes": ExpertSettings(),
            "dense": ExpertSettings(),
            "neighbours": ExpertSettings(share=0.3),
        },
        tokenizer=KeptTokenizer(tokenizer, "random"),
        vectors=ItemVectors(x_ND, VectorSettings("random")),
    )
    with create(folder, "retrieval") as target:
        write_retrieval(target, artifact)


def measured(n_items: int, n_new: int, parent: Path) -> dict[str, Any]:
    """Seconds of each step, and megabytes on disk and in memory."""
    folder, row = parent / "retrieval", {"items": n_items, "new": n_new}
    write_model(folder, n_items)

    def timed(name: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = work()
        row[name] = round(time.perf_counter() - start, 2)
        return result

    new, new_MD = described(n_new, "N"), vectors(n_new, 2)
    one, one_MD = described(1, "O"), vectors(1, 3)
    live = timed("read_s", lambda: read_live(folder))
    live = timed("add_many_s", lambda: change(folder, "", lambda *now: add_items(*now, new, new_MD), live))
    recommender = timed("recommender_s", lambda: Recommender(live.artifact))
    fame_N = np.zeros(n_items)
    view = timed("catalogue_view_s", lambda: CatalogView(recommender, fame_N))
    live = timed("add_one_s", lambda: change(folder, "", lambda *now: add_items(*now, one, one_MD), live))
    live = timed("remove_one_s", lambda: change(folder, "", lambda *now: remove_items(*now, ["B7"]), live))
    recommender = timed("changed_recommender_s", lambda: recommender.changed_to(live))
    timed("changed_view_s", lambda: CatalogView(recommender, fame_N, view))
    timed("search_s", lambda: recommender.search("ketle of stel"))
    timed("recommend_s", lambda: recommender.recommend([["B1", "N2", "B3"]] * 32))
    timed("read_again_s", lambda: read_live(folder))
    files = {path: path.stat().st_size / 1e6 for path in folder.rglob("*") if path.is_file()}
    last = folder / VERSIONS / "3"
    row["model_mb"] = round(sum(size for path, size in files.items() if VERSIONS not in path.parts), 1)
    row["version_mb"] = round(sum(size for path, size in files.items() if last in path.parents), 1)
    row["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return row


def main() -> None:
    """Measure each size."""
    parser = argparse.ArgumentParser(description="Time of changes to a catalogue.")
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--new", type=int, default=10_000, help="items that are added at once")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    rows = []
    for n_items in arguments.items:
        with TemporaryDirectory() as folder:
            rows.append(measured(n_items, arguments.new, Path(folder)))
        if not arguments.json:
            print(rows[-1])
    if arguments.json:
        print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
