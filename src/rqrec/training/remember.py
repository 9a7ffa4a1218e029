"""How much a memory of neighbours should say beside a trained model: chosen on the validation split.

Shapes: B cases, K items of a beam, R remembered items.
"""

from itertools import product

import torch
from torch import Tensor

from rqrec.data.splits import Split
from rqrec.progress import track
from rqrec.retrieval.memory import NeighbourMemory, Remembered
from rqrec.retrieval.retriever import Retriever

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
SHARPNESSES = (1.0, 2.0, 3.0, 4.0)
BATCH = 128
CUT = 10  # places of a list that count


@torch.inference_mode()
def memory_for(retriever: Retriever, split: Split, *, validation_users: int | None = None) -> NeighbourMemory:
    """The memory of the training split, with the share and sharpness that give the best validation NDCG@10.

    One beam search for each validation case (every n-th of them, `validation_users` at most) serves all choices: an
    item outside of the beam is taken to have the memory's part of its probability alone.
    """
    memory = NeighbourMemory.of(split.train, len(retriever.table)).to(retriever.device)
    everyone = split.validation
    cases = everyone.every(-(-len(everyone) // (validation_users or len(everyone))))
    choices = [*product(SHARES, SHARPNESSES)]
    gains = torch.zeros(len(choices), dtype=torch.float64)
    for part in track(list(cases.batches(BATCH)), "Choosing the memory's share"):
        histories = cases.histories(part)
        items_BT = torch.from_numpy(histories.last(retriever.model.max_items).items_BT).to(retriever.device)
        targets_B = torch.from_numpy(cases.targets[part]).to(retriever.device)
        beam = retriever.recommend(histories, retriever.beam_width)
        generated = Remembered(beam.items, beam.scores.exp())  # what is no item has a score of minus infinity
        remembered = memory.recall(items_BT)
        common_BKR = generated.items_BR[:, :, None] == remembered.items_BR[:, None]
        for place, (share, sharpness) in enumerate(choices):
            chosen = memory.using(share=share, sharpness=sharpness)
            recalled = Remembered(remembered.items_BR, chosen.probabilities(remembered))
            gains[place] += _gain(generated, recalled, common_BKR, share, targets_B)
    share, sharpness = choices[int(gains.argmax())]
    return memory.using(share=share, sharpness=sharpness)


def _gain(
    generated: Remembered, recalled: Remembered, common_BKR: Tensor, share: float, targets_B: Tensor
) -> float:
    """The sum of NDCG@10 over the cases, each with one right item."""
    part_B1 = share * recalled.scores_BR.any(1, keepdim=True)
    theirs_BR = part_B1 * recalled.scores_BR
    both_BK = (1 - part_B1) * generated.scores_BR + (common_BKR * theirs_BR[:, None]).sum(2)
    alone_BR = theirs_BR.masked_fill(common_BKR.any(1), 0.0)  # those of the beam stand in `both_BK`
    items = torch.cat([generated.items_BR, recalled.items_BR], dim=1)
    scores = torch.cat([both_BK, alone_BR], dim=1)
    target_B1 = (scores * (items == targets_B[:, None])).amax(1, keepdim=True)
    rank_B = (scores > target_B1).sum(1)
    counts_B = (rank_B < CUT) & (target_B1[:, 0] > 0)
    return float((counts_B / torch.log2(rank_B + 2.0)).sum())
