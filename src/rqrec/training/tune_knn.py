"""What a memory of neighbours holds and how much it says beside a trained model: chosen on the validation split.

Shapes: B cases, K items of a beam, R remembered items, N items, D width of a vector.
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

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SHARPNESSES = (1.0, 2.0, 3.0, 4.0)
CONTENTS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
NEIGHBOURS, SHRINKAGE = 50, 20.0  # by who took what
MOST_CONTENTS = 200_000  # items that are compared with each other; the work grows with the square
BATCH = 128
CUT = 10  # places of a list that count


@torch.inference_mode()
def tune_knn_mixture(
    retriever: Retriever,
    split: Split,
    *,
    contents_ND: NDArray[np.floating] | None = None,
    validation_users: int | None = None,
) -> KnnIndex:
    """The memory that gives the best validation NDCG@10, of the training split: nothing later ever counts.

    First the weight of the contents' likeness is chosen, for the memory alone, then the mixture's share and
    sharpness. One beam search for each validation case (every n-th of them, `validation_users` at most) serves
    all choices: an item outside of the beam is taken to have the memory's part of its probability alone.
    """
    everyone = split.validation
    cases = everyone.strided(-(-len(everyone) // (validation_users or len(everyone))))
    memory = _neighbours(retriever, split, contents_ND, cases)
    choices = [*product(SHARES, SHARPNESSES)]
    gains = torch.zeros(len(choices), dtype=torch.float64)
    for part in track(list(cases.batches(BATCH)), "Choosing the memory's share"):
        histories, targets_B = cases.histories(part), _targets(cases, part, retriever)
        beam = retriever.recommend(histories, retriever.beam_width)
        generated = Candidates(beam.items, beam.scores.exp())  # what is no item has a score of minus infinity
        remembered = _recall(memory, histories, retriever)
        both = _Common.of(generated.items_BR, remembered.items_BR)
        for place, (share, sharpness) in enumerate(choices):
            probabilities_BR = memory.using(sharpness=sharpness).probabilities(remembered)
            recalled = Candidates(remembered.items_BR, probabilities_BR)
            gains[place] += _gain(_mixed(generated, recalled, both, share), targets_B)
    share, sharpness = choices[int(gains.argmax())]
    return memory.using(share=share, sharpness=sharpness)


def _neighbours(
    retriever: Retriever, split: Split, contents_ND: NDArray[np.floating] | None, cases: EvalExamples
) -> KnnIndex:
    n_items = len(retriever.table)
    likeness_NN = item_item_knn(split.train, n_items, NEIGHBOURS, SHRINKAGE)
    plain = KnnIndex.of(likeness_NN).to(retriever.device)
    if contents_ND is None or n_items < 2:
        return plain
    if n_items > MOST_CONTENTS:
        log(
            f"The memory leaves contents out: comparing {n_items:,} items takes too long (limit {MOST_CONTENTS:,})."
        )
        return plain
    content_NN = content_knn_graph(contents_ND, CONTENT_NEIGHBOURS)
    best, most = plain, -1.0
    for weight in track(CONTENTS, "Choosing what contents count"):
        memory = KnnIndex.of(likeness_NN + weight * content_NN) if weight else plain
        memory = memory.to(retriever.device).using(content=weight)
        gain = sum(
            _gain(_recall(memory, cases.histories(part), retriever), _targets(cases, part, retriever))
            for part in cases.batches(BATCH)
        )
        if gain > most:
            best, most = memory, gain
    return best


def _targets(cases: EvalExamples, part: slice, retriever: Retriever) -> Tensor:
    return torch.from_numpy(cases.targets[part]).to(retriever.device)


def _recall(memory: KnnIndex, histories: Histories, retriever: Retriever) -> Candidates:
    recent = histories.last(retriever.model.max_items)
    return memory.recall(torch.from_numpy(recent.items_BT).to(retriever.device))


class _Common(NamedTuple):
    """Which generated items were recalled too, at which place, and which of the recalled were generated."""

    recalled_BK: Tensor
    place_BK: Tensor
    generated_BR: Tensor

    @classmethod
    def of(cls, generated_BK: Tensor, recalled_BR: Tensor) -> "_Common":
        equal_BKR = generated_BK[:, :, None] == recalled_BR[:, None]
        return cls(*equal_BKR.max(dim=2), equal_BKR.any(1))


def _mixed(generated: Candidates, recalled: Candidates, both: _Common, share: float) -> Candidates:
    """The mixture's probabilities of what was generated or recalled."""
    part_B1 = share * recalled.scores_BR.any(1, keepdim=True)
    theirs_BR = part_B1 * recalled.scores_BR
    theirs_BK = theirs_BR.gather(1, both.place_BK) * both.recalled_BK
    both_BK = (1 - part_B1) * generated.scores_BR + theirs_BK
    alone_BR = theirs_BR.masked_fill(both.generated_BR, 0.0)  # those of the beam stand in `both_BK`
    items = torch.cat([generated.items_BR, recalled.items_BR], dim=1)
    return Candidates(items, torch.cat([both_BK, alone_BR], dim=1))


def _gain(proposed: Candidates, targets_B: Tensor) -> float:
    """The sum of NDCG@10 over the cases, each with one right item."""
    hits_BR = proposed.scores_BR * (proposed.items_BR == targets_B[:, None])
    target_B = hits_BR.sum(1)  # an item is proposed once, or again with a score of 0
    rank_B = (proposed.scores_BR > target_B[:, None]).sum(1)
    counts_B = (rank_B < CUT) & (target_B > 0)
    return float((counts_B / torch.log2(rank_B + 2.0)).sum())
