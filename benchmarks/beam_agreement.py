"""How often beam search finds the same ten items as scoring every item, by beam width, and what that costs.

The histories are the validation examples of the protocol that the model was trained with, and seen items are excluded
or allowed as in its training. Experts that it is joined with are left out, and the test split is not used. Scoring
every item takes long: limit the users for a large catalogue.

    python benchmarks/beam_agreement.py --run out/demo --json
    python benchmarks/beam_agreement.py --run out/beauty --beams 10 50 --users 1000
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rqrec.core.artifact import check_inputs, find, read_manifest
from rqrec.data.dataset import Dataset
from rqrec.data.protocols import protocol_of
from rqrec.data.splits import EvalExamples, get_protocol
from rqrec.evaluation.metrics import ranking_metrics, target_ranks
from rqrec.retrieval.artifact import read_retrieval
from rqrec.retrieval.ranking import ExhaustiveRecommender, ItemRecommender

K = 10  # length of the compared lists
METRICS = ("recall@10", "ndcg@10")


def lists(
    recommender: ItemRecommender, examples: EvalExamples, batch: int, *, exclude_seen: bool
) -> NDArray[np.int64]:
    """The first ten items for each example, int64 [C, K]."""

    def batches() -> Iterator[NDArray[np.int64]]:
        for rows in examples.batches(batch):
            ranked = recommender.recommend(examples.histories(rows), K, exclude_seen=exclude_seen)
            yield ranked.items.numpy(force=True)

    return np.concatenate(list(batches()))


def measure(run: Path, beams: list[int], users: int | None, batch: int) -> list[dict[str, object]]:
    """A row for scoring every item with the codes expert, and one per beam width."""
    model, dataset = find(run, "retrieval"), find(run, "dataset")
    check_inputs(model, {"dataset": dataset})
    checkpoint = read_retrieval(model)
    protocol = get_protocol(protocol_of(read_manifest(model)) or "leave_one_out")
    examples = protocol(Dataset.read(dataset).sequences).validation
    examples = examples.strided(-(-len(examples) // (users or len(examples))))

    recommenders: dict[str, ItemRecommender] = {
        "every item": ExhaustiveRecommender(checkpoint.retriever()),
        **{str(width): checkpoint.retriever(width) for width in beams},
    }
    rows, exact_CK = [], None
    for name, recommender in recommenders.items():
        start = time.process_time()
        items_CK = lists(recommender, examples, batch, exclude_seen=checkpoint.exclude_seen)
        seconds = time.process_time() - start
        exact_CK = items_CK if exact_CK is None else exact_CK
        metrics = ranking_metrics(target_ranks(items_CK, examples.targets), METRICS)
        row = {
            "beam": name,
            "equal_lists": round(float((items_CK == exact_CK).all(axis=1).mean()), 4),
            **{metric: round(value, 4) for metric, value in metrics.items()},
            "cpu_ms_per_user": round(1e3 * seconds / len(examples), 2),
            "users": len(examples),
        }
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder with a dataset and a retrieval model")
    parser.add_argument("--beams", nargs="+", type=int, default=[10, 20, 50, 100])
    parser.add_argument("--users", type=int, help="at most this many; by default all")
    parser.add_argument("--batch", type=int, default=64, help="users in a batch")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(options.run, options.beams, options.users, options.batch)
    if options.json:
        print(json.dumps({"threads": torch.get_num_threads(), "rows": rows}))
    for row in [] if options.json else rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
