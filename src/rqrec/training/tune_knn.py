"""Builds the kNN index for the mixture with a trained model, and tunes its settings on the validation split.

Shapes: B examples, K items of a beam, R kNN candidates, N items, D width of a vector.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rqrec.core.progress import log, track
from rqrec.data.sequences import Histories
from rqrec.data.splits import EvalExamples, Split
from rqrec.knn.graph import CONTENT_NEIGHBOURS, content_knn_graph, item_item_knn
from rqrec.knn.index import Candidates, KnnIndex
from rqrec.retrieval.retriever import Retriever

MIXTURE_WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
POWERS = (1.0, 2.0, 3.0, 4.0)
CONTENT_WEIGHTS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
NEIGHBOURS, SHRINKAGE = 50, 20.0  # of the co-occurrence graph
MAX_CONTENT_ITEMS = 200_000  # comparing all pairs of items takes quadratic time
BATCH_SIZE = 128
CUTOFF = 10  # of NDCG


@torch.inference_mode()
def tune_knn_mixture(
    retriever: Retriever,
    split: Split,
    *,
    content_ND: NDArray[np.floating] | None = None,
    validation_users: int | None = None,
) -> KnnIndex:
    """The kNN index of the training split, with the settings that give the best validation NDCG@10.

    The content weight is chosen first, for the index without the model; then the mixture weight and power, jointly.
    One beam search per validation example (every n-th, at most `validation_users`) is enough for all combinations:
    items outside the beam are assumed to have probability 0 under the model.
    """
    validation = split.validation
    examples = validation.strided(-(-len(validation) // (validation_users or len(validation))))
    index = _build_index(retriever, split, content_ND, examples)
    grid = [*product(MIXTURE_WEIGHTS, POWERS)]
    ndcg_sums = torch.zeros(len(grid), dtype=torch.float64)
    for part in track(list(examples.batches(BATCH_SIZE)), "Tuning the kNN mixture"):
        histories, targets_B = examples.histories(part), _targets(examples, part, retriever)
        beam = retriever.recommend(histories, retriever.beam_width)
        generated = Candidates(beam.items, beam.scores.exp())  # padding has a score of minus infinity
        candidates = _retrieve(index, histories, retriever)
        overlap = _overlap(generated.items_BR, candidates.items_BR)
        for point, (weight, power) in enumerate(grid):
            p_knn_BR = index.with_settings(power=power).probabilities(candidates)
            mixed = _mix(generated, Candidates(candidates.items_BR, p_knn_BR), overlap, weight)
            ndcg_sums[point] += _ndcg_sum(mixed, targets_B)
    weight, power = grid[int(ndcg_sums.argmax())]
    return index.with_settings(mixture_weight=weight, power=power)


def _build_index(
    retriever: Retriever, split: Split, content_ND: NDArray[np.floating] | None, examples: EvalExamples
) -> KnnIndex:
    """The co-occurrence index, with the content weight that is best for the index without the model."""
    n_items = len(retriever.table)
    similarity_NN = item_item_knn(split.train, n_items, NEIGHBOURS, SHRINKAGE)
    without_content = KnnIndex.from_similarity(similarity_NN).to(retriever.device)
    if content_ND is None or n_items < 2:
        return without_content
    if n_items > MAX_CONTENT_ITEMS:
        log(
            f"The kNN index does not use content: there are {n_items:,} items, and comparing all pairs takes too "
            f"long above {MAX_CONTENT_ITEMS:,}."
        )
        return without_content
    content_NN = content_knn_graph(content_ND, CONTENT_NEIGHBOURS)
    best, best_sum = without_content, -1.0
    for weight in track(CONTENT_WEIGHTS, "Tuning the content weight"):
        index = KnnIndex.from_similarity(similarity_NN + weight * content_NN) if weight else without_content
        index = index.to(retriever.device).with_settings(content_weight=weight)
        ndcg_sum = sum(
            _ndcg_sum(
                _retrieve(index, examples.histories(part), retriever), _targets(examples, part, retriever)
            )
            for part in examples.batches(BATCH_SIZE)
        )
        if ndcg_sum > best_sum:
            best, best_sum = index, ndcg_sum
    return best


def _targets(examples: EvalExamples, part: slice, retriever: Retriever) -> Tensor:
    return torch.from_numpy(examples.targets[part]).to(retriever.device)


def _retrieve(index: KnnIndex, histories: Histories, retriever: Retriever) -> Candidates:
    recent = histories.last(retriever.model.max_items)
    return index.retrieve(torch.from_numpy(recent.items_BT).to(retriever.device))


class _Overlap(NamedTuple):
    """Which items are both in the beam and among the kNN candidates."""

    is_candidate_BK: Tensor
    """bool: the beam's item is a kNN candidate too."""
    candidate_BK: Tensor
    """int64: its column among the candidates (0 if it is not one)."""
    is_generated_BR: Tensor
    """bool: the candidate is in the beam too."""


def _overlap(generated_BK: Tensor, candidates_BR: Tensor) -> _Overlap:
    equal_BKR = generated_BK[:, :, None] == candidates_BR[:, None]
    return _Overlap(*equal_BKR.max(dim=2), equal_BKR.any(1))


def _mix(generated: Candidates, candidates: Candidates, overlap: _Overlap, weight: float) -> Candidates:
    """The mixture's probabilities of the items of the beam and of the kNN candidates."""
    weight_B1 = weight * candidates.scores_BR.any(1, keepdim=True)
    knn_BR = weight_B1 * candidates.scores_BR
    knn_BK = knn_BR.gather(1, overlap.candidate_BK) * overlap.is_candidate_BK
    mixed_BK = (1 - weight_B1) * generated.scores_BR + knn_BK
    knn_only_BR = knn_BR.masked_fill(overlap.is_generated_BR, 0.0)  # the others are counted in `mixed_BK`
    items = torch.cat([generated.items_BR, candidates.items_BR], dim=1)
    return Candidates(items, torch.cat([mixed_BK, knn_only_BR], dim=1))


def _ndcg_sum(proposed: Candidates, targets_B: Tensor) -> float:
    """The sum of NDCG@10 over the examples, each with one relevant item."""
    hits_BR = proposed.scores_BR * (proposed.items_BR == targets_B[:, None])
    target_B = hits_BR.sum(1)  # of two entries of the same item, one scores 0
    rank_B = (proposed.scores_BR > target_B[:, None]).sum(1)
    is_hit_B = (rank_B < CUTOFF) & (target_B > 0)
    return float((is_hit_B / torch.log2(rank_B + 2.0)).sum())
