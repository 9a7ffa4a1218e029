"""The data that every adapter gets: one leave-one-out split of a prepared dataset, as plain arrays.

SPLIT/split.npz       items [M], offsets [U + 1]: training items by user, oldest first; validation [U], PADDING if the
                      user has too few items; n_items
SPLIT/embeddings.npy  the vectors that our own tokenizer gets, float32 [N, D]
SPLIT/targets.npy     test items [U], PADDING as above: read by the evaluator, not by adapters
"""

from pathlib import Path
from typing import Any

import numpy as np
from adapter import CODEBOOK
from numpy.typing import NDArray

from rqrec.core.artifact import find
from rqrec.data.dataset import Dataset
from rqrec.data.embeddings import EMBEDDINGS_FILE
from rqrec.data.ids import PADDING
from rqrec.data.splits import leave_one_out
from rqrec.evaluation.metrics import ranking_metrics, target_ranks
from rqrec.tokenizer.semantic_ids import collision_rate, group_sizes, level_usage

METRICS = ("recall@10", "ndcg@10")


def export(run: Path, folder: Path) -> None:
    """Write the split of the dataset in `run`, and the embeddings of its items."""
    dataset = Dataset.read(run)
    split = leave_one_out(dataset.sequences)
    validation_U, targets_U = (np.full(len(dataset.sequences), PADDING) for _ in range(2))
    validation_U[split.validation.users] = split.validation.targets
    targets_U[split.test.users] = split.test.targets
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "split.npz",
        items=split.train.items.astype(np.int64),
        offsets=split.train.offsets,
        validation=validation_U,
        n_items=len(dataset.catalog),
    )
    np.save(folder / "targets.npy", targets_U)
    np.save(folder / "embeddings.npy", np.load(find(run, "embeddings") / EMBEDDINGS_FILE).astype(np.float32))


def evaluate(split: Path, users_B: NDArray[np.int64], lists_BK: NDArray[np.int64]) -> dict[str, float]:
    """recall@10 and ndcg@10 of the test items of these users, by the evaluator that our own models have.

    Raises ValueError if a list has an item twice, or one of the user's history.
    """
    with np.load(split / "split.npz") as arrays:
        items, offsets, validation_U = arrays["items"], arrays["offsets"], arrays["validation"]
    for user, row in zip(users_B.tolist(), lists_BK.tolist(), strict=True):
        found = [item for item in row if item != PADDING]
        seen = {*items[offsets[user] : offsets[user + 1]].tolist(), int(validation_U[user])}
        if len(set(found)) < len(found) or seen.intersection(found):
            raise ValueError(f"The list of user {user} repeats items, or has some that the user knows: {row}")
    metrics = ranking_metrics(target_ranks(lists_BK, np.load(split / "targets.npy")[users_B]), METRICS)
    return {name: round(value, 4) for name, value in metrics.items()}


def measure_codes(codes_NL: NDArray[np.int64]) -> dict[str, Any]:
    """Usage of the codebooks, share of items that share their codes, and the largest group of such items."""
    levels = level_usage(codes_NL, (CODEBOOK,) * codes_NL.shape[1])
    return {
        "usage": round(float(np.mean([level.usage for level in levels])), 4),
        "collision_rate": round(collision_rate(codes_NL), 4),
        "largest_group": int(group_sizes(codes_NL).max()),
    }
