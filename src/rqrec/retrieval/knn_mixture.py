"""A memory of which items go together, mixed with a model's probabilities while codes are generated.

A transformer forgets pairs of items that it saw a few times, which is all that most items of a catalogue have.
So it is joined by what remembers them, as a language model is by the contexts that were like the present one
(kNN-LM, U. Khandelwal et al., arXiv 1911.00172, equation 3):

    p(item | history) = (1 - share) x p_model(item | history) + share x p_memory(item | history)

Both parts are distributions over the same semantic IDs, the memory's probability of a prefix being the sum of those
of the items below it. So the mixture is a model like any other, which beam search asks level by level.

Shapes: B batch, T items of a history, N items, M neighbours of an item, R = T x M remembered items, K beams,
l codes of a prefix, V codes of the next level, L levels.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rqrec.knn.index import KnnIndex
from rqrec.models.interface import Batch, RetrievalModel, TrainingLoss
from rqrec.retrieval.prefixes import Prefixes


class _Asked(NamedTuple):
    """The model's answer of the level before: prefixes, their log-probabilities, and those of the next codes."""

    prefix_BKl: Tensor
    reached_BK: Tensor
    next_BKV: Tensor


@dataclass
class MixtureContext:
    """What is kept of a batch of histories: the model's own context, and what the memory proposes for each.

    `asked` is what the model said last, so that the levels of a search build on each other.
    """

    own: Any
    items_BR: Tensor
    probabilities_BR: Tensor
    asked: _Asked | None = None


class KnnMixture:
    """A model and a memory as one model of the next item's semantic ID.

    `codes_NL` int64 [N, L] are those of the catalogue that both are of. Batches must say which items their
    histories have (`Batch.items_BT`).
    """

    def __init__(self, model: RetrievalModel[Any], memory: KnnIndex, codes_NL: Tensor) -> None:
        self.model, self.memory = model, memory.to(codes_NL.device)
        self.level_sizes, self.max_items = model.level_sizes, model.max_items
        self._codes_NL, self._prefixes = codes_NL, Prefixes(codes_NL, tuple(model.level_sizes))

    def __call__(self, batch: Batch) -> TrainingLoss:
        """The model's own: a memory is not trained."""
        return self.model(batch)

    def encode(self, batch: Batch) -> MixtureContext:
        """Read the histories once, and recall what goes with them."""
        if batch.items_BT is None:
            raise ValueError(
                "A memory needs to know the items of a history; this batch has their codes alone."
            )
        remembered = self.memory.recall(batch.items_BT)
        probabilities_BR = self.memory.probabilities(remembered)
        return MixtureContext(self.model.encode(batch), remembered.items_BR, probabilities_BR)

    def next_level(self, context: MixtureContext, prefix_BKl: Tensor) -> Tensor:
        """Log-probabilities float32 [B, K, V] of the mixture (see RetrievalModel)."""
        reached_BK, next_BKV = self._ask(context, prefix_BKl)
        some_B = context.probabilities_BR.any(1)
        share_B11 = (self.memory.settings.share * some_B)[:, None, None]
        generated_BKV = next_BKV + (reached_BK[:, :, None] + torch.log1p(-share_B11))
        recalled_BKV = torch.log(share_B11 * self._below(context, prefix_BKl))
        return torch.logaddexp(generated_BKV, recalled_BKV).log_softmax(-1)

    def _ask(self, context: MixtureContext, prefix_BKl: Tensor) -> tuple[Tensor, Tensor]:
        """The model's log-probabilities of the prefixes [B, K] and of the codes after them [B, K, V]."""
        reached_BK = self._reached(context, prefix_BKl)
        next_BKV = self.model.next_level(context.own, prefix_BKl)
        context.asked = _Asked(prefix_BKl, reached_BK, next_BKV)
        return reached_BK, next_BKV

    def _reached(self, context: MixtureContext, prefix_BKl: Tensor) -> Tensor:
        level = prefix_BKl.shape[2]
        if level == 0:
            return torch.zeros(prefix_BKl.shape[:2], device=prefix_BKl.device)
        parents_BKl, last = prefix_BKl[:, :, :-1], context.asked
        if last is None or (place_BK := _places(parents_BKl, last.prefix_BKl)) is None:
            reached_BK, next_BKV = self._ask(context, parents_BKl)
        else:
            reached_BK = last.reached_BK.gather(1, place_BK)
            rows_BKV = place_BK[:, :, None].expand(-1, -1, last.next_BKV.shape[2])
            next_BKV = last.next_BKV.gather(1, rows_BKV)
        return reached_BK + next_BKV.gather(2, prefix_BKl[:, :, -1:])[:, :, 0]

    def _below(self, context: MixtureContext, prefix_BKl: Tensor) -> Tensor:
        """The memory's probability float32 [B, K, V] of each prefix with each next code."""
        n_batch, n_beams, level = prefix_BKl.shape
        size, items_BR = self.level_sizes[level], context.items_BR.clamp(min=0)
        nodes_BK, order_BK = self._prefixes.of_prefix(prefix_BKl).sort(dim=1)
        of_items_BR = self._prefixes.of_item[level][items_BR]
        place_BR = torch.searchsorted(nodes_BK, of_items_BR).clamp_(max=n_beams - 1)
        found_BR = nodes_BK.gather(1, place_BR) == of_items_BR
        cells_BR = place_BR * size + self._codes_NL[:, level][items_BR]
        sums = torch.zeros(n_batch, n_beams * size, device=prefix_BKl.device)
        sums.scatter_add_(1, cells_BR, context.probabilities_BR * found_BR)
        # Of equal prefixes the first of the sorted ones has the sums.
        first_BK = torch.empty_like(order_BK).scatter_(1, order_BK, torch.searchsorted(nodes_BK, nodes_BK))
        return sums.view(n_batch, n_beams, size).gather(1, first_BK[:, :, None].expand(-1, -1, size))


def _places(prefix_BKl: Tensor, among_BJl: Tensor) -> Tensor | None:
    """Where each prefix stands among others, int64 [B, K]; None where one is not there."""
    if prefix_BKl.shape[2] != among_BJl.shape[2]:
        return None
    if prefix_BKl.shape == among_BJl.shape and torch.equal(prefix_BKl, among_BJl):
        return torch.arange(prefix_BKl.shape[1], device=prefix_BKl.device).expand(prefix_BKl.shape[:2])
    equal_BKJ = (prefix_BKl[:, :, None] == among_BJl[:, None]).all(-1)
    found_BK, place_BK = equal_BKJ.max(dim=2)
    return place_BK if bool(found_BK.all()) else None
