"""Cold-item smoothing: reserve some of a model's probability for items that were added after training.

The last codes of a semantic ID that never occurred in training are unlikely, however well its first codes fit, so
cold items never reach the top of a list. TIGER reserves a share of the list for them (arXiv 2305.05065, section
4.3). Here they get a share of the probability, at each prefix where their IDs diverge from those of trained items:

    p(code | history, prefix) = (1 - share) x p_model(code | history, prefix) + share / n    for the n cold codes

A code is cold if no item below it was in training. The model knows nothing below a cold prefix, so the codes there
share all of the probability evenly.

Shapes: B batch, K beams, l codes of a prefix, V codes of the next level, C cold codes of a prefix (at most),
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
        self._cold_codes = [self._cold_codes_after(depth) for depth in range(trie.n_levels)]

    def __call__(self, batch: Batch) -> TrainingLoss:
        """The loss of the model: smoothing has nothing to train."""
        return self.model(batch)

    def encode(self, batch: Batch) -> Any:
        """Read the histories once."""
        return self.model.encode(batch)

    def _cold_codes_after(self, depth: int) -> tuple[Tensor, Tensor]:
        """The cold codes below all nodes at a depth, concatenated, and each node's start in them int64 [n_d + 1]."""
        is_cold = self._is_cold[depth + 1]
        codes = self._trie.depths[depth + 1].code[is_cold].long()
        parents = self._trie.parents(depth + 1)[is_cold]
        counts = torch.bincount(parents, minlength=len(self._is_cold[depth]))
        starts = torch.zeros(len(counts) + 1, dtype=torch.int64, device=codes.device)
        starts[1:] = counts.cumsum(0)
        return codes, starts

    def next_level(self, context: Any, prefix_BKl: Tensor) -> Tensor:
        """Log-probabilities float32 [B, K, V], with the share of the cold codes (see RetrievalModel)."""
        level = prefix_BKl.shape[2]
        log_probs_BKV = self.model.next_level(context, prefix_BKl)
        codes, starts = self._cold_codes[level]
        if not len(codes):
            return log_probs_BKV
        nodes_BK = self._trie.nodes_of_prefixes(prefix_BKl)
        is_real_BK = nodes_BK >= 0
        nodes_BK = nodes_BK.clamp(min=0)
        start_BK = starts[nodes_BK]
        counts_BK = (starts[nodes_BK + 1] - start_BK) * is_real_BK
        shares_BK = torch.where(self._is_cold[level][nodes_BK], 1.0, self.share) * (counts_BK > 0)
        offsets_BKC = torch.arange(int(counts_BK.max()), device=codes.device).expand(*counts_BK.shape, -1)
        inside_BKC = offsets_BKC < counts_BK[:, :, None]
        codes_BKC = codes[(start_BK[:, :, None] + offsets_BKC).clamp(max=len(codes) - 1)]
        each_BKC = (inside_BKC * shares_BK[:, :, None]) / counts_BK.clamp(min=1)[:, :, None]
        cold_BKV = torch.zeros_like(log_probs_BKV).scatter_add_(
            2, codes_BKC, each_BKC.to(log_probs_BKV.dtype)
        )
        return torch.logaddexp(log_probs_BKV + torch.log1p(-shares_BK)[:, :, None], cold_BKV.log())
