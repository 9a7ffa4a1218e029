"""A share of every model's probability for items that came after its training.

A path of codes that nobody took in training is unlikely at its last codes, however well its first ones fit, so that a
new item is never among the first. TIGER gives such items a share of the list (arXiv 2305.05065, section 4.3); here
they get a share of the probability where their path leaves the known ones:

    p(code | history, prefix) = (1 - share) x p_model(code | history, prefix) + share / n    for n new codes

at every known prefix that has new codes, codes under which no item was trained on. From there on nothing is known,
and the codes share evenly. What comes out is a model like any other.

Shapes: B batch, K beams, l codes of a prefix, V codes of the next level, C new codes of a prefix (the most), N items,
L levels.
"""

from typing import Any

import torch
from torch import Tensor

from rqrec.models.interface import Batch, RetrievalModel, TrainingLoss
from rqrec.retrieval.prefixes import Prefixes


class ColdItemSmoothing:
    """A model that makes room for new items: those of `codes_NL` int64 [N, L] where `known_N` bool [N] is False.

    Raises ValueError where `share` is not above 0 and below 1.
    """

    def __init__(self, model: RetrievalModel[Any], codes_NL: Tensor, known_N: Tensor, share: float) -> None:
        if not 0 < share < 1:
            raise ValueError(f"The share of new items is {share}, but must be above 0 and below 1.")
        self.model, self.share = model, share
        self.level_sizes, self.max_items = model.level_sizes, model.max_items
        self._prefixes = Prefixes(codes_NL, tuple(model.level_sizes))
        self._is_new = [self._without(known_N, nodes_N) for nodes_N in self._prefixes.of_item]
        self._new_codes = [self._new_codes_of(level) for level in range(len(model.level_sizes))]

    @staticmethod
    def _without(known_N: Tensor, nodes_N: Tensor) -> Tensor:
        """Whether no known item is below each node of a depth, bool."""
        counts = torch.zeros(int(nodes_N.max()) + 1, dtype=torch.int64, device=nodes_N.device)
        return counts.scatter_add_(0, nodes_N, known_N.long()) == 0

    def _new_codes_of(self, level: int) -> tuple[Tensor, Tensor]:
        """The new codes of all nodes of a depth, one after the other, and where each node's begin [nodes + 1]."""
        keys = self._prefixes.keys[level][self._is_new[level + 1]]
        parents = keys.div(self.level_sizes[level], rounding_mode="floor")
        counts = torch.bincount(parents, minlength=len(self._is_new[level]))
        begins = torch.zeros(len(counts) + 1, dtype=torch.int64, device=keys.device)
        begins[1:] = counts.cumsum(0)
        return keys % self.level_sizes[level], begins

    def __call__(self, batch: Batch) -> TrainingLoss:
        """The model's own: the share is not trained."""
        return self.model(batch)

    def encode(self, batch: Batch) -> Any:
        """Read the histories once."""
        return self.model.encode(batch)

    def next_level(self, context: Any, prefix_BKl: Tensor) -> Tensor:
        """Log-probabilities float32 [B, K, V], with the share of new codes (see RetrievalModel)."""
        level = prefix_BKl.shape[2]
        own_BKV = self.model.next_level(context, prefix_BKl)
        codes, begins = self._new_codes[level]
        if not len(codes):
            return own_BKV
        nodes_BK = self._prefixes.of_prefix(prefix_BKl)
        real_BK = nodes_BK >= 0
        nodes_BK = nodes_BK.clamp(min=0)
        first_BK = begins[nodes_BK]
        counts_BK = (begins[nodes_BK + 1] - first_BK) * real_BK
        shares_BK = torch.where(self._is_new[level][nodes_BK], 1.0, self.share) * (counts_BK > 0)
        places_BKC = torch.arange(int(counts_BK.max()), device=codes.device).expand(*counts_BK.shape, -1)
        inside_BKC = places_BKC < counts_BK[:, :, None]
        codes_BKC = codes[(first_BK[:, :, None] + places_BKC).clamp(max=len(codes) - 1)]
        each_BKC = (inside_BKC * shares_BK[:, :, None]) / counts_BK.clamp(min=1)[:, :, None]
        new_BKV = torch.zeros_like(own_BKV).scatter_add_(2, codes_BKC, each_BKC.to(own_BKV.dtype))
        return torch.logaddexp(own_BKV + torch.log1p(-shares_BK)[:, :, None], new_BKV.log())
