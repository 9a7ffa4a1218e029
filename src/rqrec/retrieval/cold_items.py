"""Cold-item smoothing: reserve some of a model's probability for items that were added after training.

The last codes of a semantic ID that never occurred in training are unlikely, however well its first codes fit, so
cold items never reach the top of a list. TIGER reserves a share of the list for them (arXiv 2305.05065, section
4.3). Here they get a share of the probability, at each prefix where their IDs diverge from those of trained items:

    p(code | history, prefix) = share / n                                               for each of n cold codes
    p(code | history, prefix) = (1 - share) x p_model(code | history, prefix, trained)    for the trained codes

A code is cold if no item below it was in training, and p_model is the softmax over the trained codes. The model knows
nothing below a cold prefix, so the codes there share all of the probability evenly.

Shapes: B batch, K beams, l codes of a prefix, V codes of the next level, C children of a prefix's node (at most),
N items.
"""

from typing import Any

import torch
from torch import Tensor

from rqrec.models.retrieval_model import Batch, RetrievalModel, TrainingLoss
from rqrec.tokenizer.trie import Trie


class ColdItemSmoothing:
    """Gives the items of a trie that are False in `trained_N` (bool [N]) a share of the model's probability.

    Raises ValueError unless 0 < share < 1.
    """

    def __init__(self, model: RetrievalModel[Any], trie: Trie, trained_N: Tensor, share: float) -> None:
        if not 0 < share < 1:
            raise ValueError(f"The share of cold items is {share}, but must be above 0 and below 1.")
        self.model, self.share, self._trie = model, share, trie
        self.level_sizes, self.max_items = model.level_sizes, model.max_items
        self._is_cold = [counts == 0 for counts in trie.allowed_below(trained_N)]
        self._has_cold = [bool(is_cold.any()) for is_cold in self._is_cold]

    def __call__(self, batch: Batch, trie: Trie) -> TrainingLoss:
        """The loss of the model: smoothing has nothing to train."""
        return self.model(batch, trie)

    def encode(self, batch: Batch) -> Any:
        """Read the histories once."""
        return self.model.encode(batch)

    def next_logits(self, context: Any, prefix_BKl: Tensor) -> Tensor:
        """Logits float32 [B, K, V] whose softmax gives cold codes their share (see RetrievalModel).

        The logits of trained codes stay. Next to their sum of exponentials S, n cold codes have the share if each has
        the logit log(S x share / (1 - share) / n).
        """
        depth = prefix_BKl.shape[2] + 1
        logits_BKV = self.model.next_logits(context, prefix_BKl).float()
        if not self._has_cold[depth]:
            return logits_BKV
        # What a prefix of no item gets does not matter.
        nodes_BK = self._trie.nodes_of_prefixes(prefix_BKl).clamp(min=0)
        children = self._trie.children(depth - 1, nodes_BK)
        own_BKC = logits_BKV.gather(2, children.codes)
        is_cold_BKC = children.exists & self._is_cold[depth][children.nodes]
        is_trained_BKC = children.exists & ~is_cold_BKC
        trained_BK1 = own_BKC.masked_fill(~is_trained_BKC, -torch.inf).logsumexp(2, keepdim=True)
        odds = self.share / (1 - self.share)
        cold_BK1 = trained_BK1 + torch.log(odds / is_cold_BKC.sum(2, keepdim=True))
        cold_BK1 = torch.where(is_trained_BKC.any(2, keepdim=True), cold_BK1, 0.0)
        # Adding 0 elsewhere: another child's code may repeat at padding.
        change_BKC = torch.where(is_cold_BKC, cold_BK1 - own_BKC, 0.0)
        return logits_BKV.scatter_add(2, children.codes, change_BKC)
