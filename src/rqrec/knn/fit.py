"""Fits a kNN index: neighbours by co-occurrence in training, and by content with a weight chosen on validation.

Shapes: N items, D width of a vector, B histories, M neighbours of a history.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from rqrec.core.progress import log, track
from rqrec.data.splits import EvalExamples, Split
from rqrec.knn.graph import CONTENT_NEIGHBOURS, content_knn_graph, item_item_knn
from rqrec.knn.index import KnnIndex

NEIGHBOURS, SHRINKAGE = 50, 20.0  # of the co-occurrence graph
CONTENT_WEIGHTS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
MAX_CONTENT_ITEMS = 200_000  # comparing all pairs of items takes quadratic time
MAX_EXAMPLES = 25_000  # validation examples that choose the content weight
BATCH_SIZE = 128
CUTOFF = 10  # of NDCG


@torch.inference_mode()
def fit_knn_index(
    split: Split,
    n_items: int,
    content_ND: NDArray[np.floating] | None = None,
    *,
    exclude_seen: bool = True,
) -> KnnIndex:
    """The kNN index of the training split, with the content weight that gives the best validation NDCG@10.

    The same function fits the expert "neighbours" of a joined model and the baseline `hybrid_knn`, so that the
    baseline is exactly what this expert adds. `exclude_seen`: whether items of a history are left out when weights
    are compared.
    """
    similarity_NN = item_item_knn(split.train, n_items, NEIGHBOURS, SHRINKAGE)
    counts_N = np.bincount(split.train.items, minlength=n_items)
    without_content = KnnIndex.from_similarity(similarity_NN, counts_N)
    if content_ND is None or n_items < 2:
        return without_content
    if n_items > MAX_CONTENT_ITEMS:
        log(
            f"The kNN index does not use content: there are {n_items:,} items, and comparing all pairs takes too "
            f"long above {MAX_CONTENT_ITEMS:,}."
        )
        return without_content
    content_NN = content_knn_graph(content_ND, CONTENT_NEIGHBOURS)
    examples = split.validation.strided(-(-len(split.validation) // MAX_EXAMPLES))
    best, best_ndcg = without_content, -1.0
    for weight in track(CONTENT_WEIGHTS, "Choosing the content weight"):
        index = without_content
        if weight:
            index = KnnIndex.from_similarity(similarity_NN + weight * content_NN, counts_N)
            index = index.with_settings(content_weight=weight)
        if (ndcg := _ndcg(index, examples, exclude_seen)) > best_ndcg:
            best, best_ndcg = index, ndcg
    return best


def _ndcg(index: KnnIndex, examples: EvalExamples, exclude_seen: bool) -> float:
    """NDCG@10 of the index alone, one relevant item per example."""
    total = 0.0
    for part in examples.batches(BATCH_SIZE):
        items_BM, _ = index.retrieve(examples.histories(part), CUTOFF, exclude_seen=exclude_seen)
        hit_BM = items_BM == torch.from_numpy(examples.targets[part])[:, None]
        total += float((hit_BM / torch.log2(torch.arange(hit_BM.shape[1]) + 2.0)).sum())
    return total / len(examples)
