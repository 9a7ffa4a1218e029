"""A kNN index mixed with a model's probabilities while codes are generated, as in kNN-LM.

A transformer does not memorise pairs of items that it saw only a few times, and most items of a catalogue occur only
in such pairs. So the model is mixed with the nearest neighbours of the history's items, as kNN-LM mixes a language
model with the nearest training contexts (U. Khandelwal et al., arXiv 1911.00172, equation 3):

    p(item | history) = (1 - weight) x p_model(item | history) + weight x p_knn(item | history)

Both parts are distributions over the same semantic IDs: p_knn of a prefix is the sum over the items below it. So the
mixture is itself a retrieval model, which beam search queries level by level.

Shapes: B batch, R candidates of a history, N items, K beams, l codes of a prefix, J other prefixes, V codes of
the next level.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rqrec.knn.index import KnnIndex
from rqrec.models.retrieval_model import Batch, RetrievalModel
from rqrec.retrieval.wrapped_model import WrappedModel
from rqrec.tokenizer.trie import Trie


class _LevelCache(NamedTuple):
    """The model's log-probabilities of the last prefixes, and of the codes after each."""

    prefix_BKl: Tensor
    prefix_log_probs_BK: Tensor
    next_log_probs_BKV: Tensor


@dataclass
class MixtureContext:
    """The state of decoding a batch of histories: the model's context, and the kNN candidates with p_knn.

    `last` is the model's output for the previous level, which gives the log-probabilities of the next prefixes.
    """

    model_context: Any
    items_BR: Tensor
    probabilities_BR: Tensor
    last: _LevelCache | None = None


class KnnMixture(WrappedModel):
    """A model and a kNN index of the same catalogue as one retrieval model.

    `trie` holds the catalogue's semantic IDs. Batches need the item indices of their histories
    (`Batch.items_BT`).
    """

    def __init__(self, model: RetrievalModel[Any], knn: KnnIndex, trie: Trie) -> None:
        super().__init__(model)
        self._knn, self._trie = knn.to(trie.item_of_leaf.device), trie
        self._nodes_of_items = [trie.nodes_of_items(depth) for depth in range(trie.n_levels + 1)]

    def encode(self, batch: Batch) -> MixtureContext:
        """Read the histories once, and retrieve the neighbours of their items.

        Raises ValueError if the batch has no item indices.
        """
        if batch.items_BT is None:
            raise ValueError(
                "The kNN mixture needs the item indices of each history (Batch.items_BT), but this batch has "
                "only their codes."
            )
        candidates = self._knn.retrieve(batch.items_BT)
        return MixtureContext(
            self.model.encode(batch), candidates.items_BR, self._knn.probabilities(candidates)
        )

    def next_level(self, context: MixtureContext, prefix_BKl: Tensor) -> Tensor:
        """Log-probabilities float32 [B, K, V] of the mixture (see RetrievalModel)."""
        prefix_log_probs_BK, next_log_probs_BKV = self._model_log_probs(context, prefix_BKl)
        # For a history without candidates, only the model is used.
        weight_B = self._knn.settings.mixture_weight * context.probabilities_BR.any(1)
        weight_B11 = weight_B[:, None, None]
        model_BKV = next_log_probs_BKV + (prefix_log_probs_BK[:, :, None] + torch.log1p(-weight_B11))
        knn_BKV = torch.log(weight_B11 * self._knn_probabilities(context, prefix_BKl))
        return torch.logaddexp(model_BKV, knn_BKV).log_softmax(-1)

    def _model_log_probs(self, context: MixtureContext, prefix_BKl: Tensor) -> tuple[Tensor, Tensor]:
        """The model's log-probabilities of the prefixes [B, K] and of the codes after them [B, K, V]."""
        prefix_log_probs_BK = self._prefix_log_probs(context, prefix_BKl)
        next_log_probs_BKV = self.model.next_level(context.model_context, prefix_BKl)
        context.last = _LevelCache(prefix_BKl, prefix_log_probs_BK, next_log_probs_BKV)
        return prefix_log_probs_BK, next_log_probs_BKV

    def _prefix_log_probs(self, context: MixtureContext, prefix_BKl: Tensor) -> Tensor:
        if prefix_BKl.shape[2] == 0:
            return torch.zeros(prefix_BKl.shape[:2], device=prefix_BKl.device)
        parents_BKl, last = prefix_BKl[:, :, :-1], context.last
        if last is None or (index_BK := _index_in(last.prefix_BKl, parents_BKl)) is None:
            parent_log_probs_BK, next_log_probs_BKV = self._model_log_probs(context, parents_BKl)
        else:
            parent_log_probs_BK = last.prefix_log_probs_BK.gather(1, index_BK)
            rows_BKV = index_BK[:, :, None].expand(-1, -1, last.next_log_probs_BKV.shape[2])
            next_log_probs_BKV = last.next_log_probs_BKV.gather(1, rows_BKV)
        return parent_log_probs_BK + next_log_probs_BKV.gather(2, prefix_BKl[:, :, -1:])[:, :, 0]

    def _knn_probabilities(self, context: MixtureContext, prefix_BKl: Tensor) -> Tensor:
        """p_knn float32 [B, K, V] of each prefix followed by each next code."""
        n_batch, n_beams, level = prefix_BKl.shape
        size, items_BR = self.level_sizes[level], context.items_BR.clamp(min=0)
        nodes_BK, order_BK = self._trie.nodes_of_prefixes(prefix_BKl).sort(dim=1)
        item_nodes_BR = self._nodes_of_items[level][items_BR]
        beam_BR = torch.searchsorted(nodes_BK, item_nodes_BR).clamp_(max=n_beams - 1)
        is_below_BR = nodes_BK.gather(1, beam_BR) == item_nodes_BR
        next_codes_BR = self._trie.depths[level + 1].code[self._nodes_of_items[level + 1][items_BR]]
        sums = torch.zeros(n_batch, n_beams * size, device=prefix_BKl.device)
        sums.scatter_add_(1, beam_BR * size + next_codes_BR, context.probabilities_BR * is_below_BR)
        # Of equal prefixes only the first sorted one has the sums.
        first_BK = torch.empty_like(order_BK).scatter_(1, order_BK, torch.searchsorted(nodes_BK, nodes_BK))
        return sums.view(n_batch, n_beams, size).gather(1, first_BK[:, :, None].expand(-1, -1, size))


def _index_in(prefix_BJl: Tensor, wanted_BKl: Tensor) -> Tensor | None:
    """The index of each wanted prefix among others, int64 [B, K]; None if one is missing."""
    if wanted_BKl.shape[2] != prefix_BJl.shape[2]:
        return None
    if wanted_BKl.shape == prefix_BJl.shape and torch.equal(wanted_BKl, prefix_BJl):
        return torch.arange(wanted_BKl.shape[1], device=wanted_BKl.device).expand(wanted_BKl.shape[:2])
    equal_BKJ = (wanted_BKl[:, :, None] == prefix_BJl[:, None]).all(-1)
    found_BK, index_BK = equal_BKJ.max(dim=2)
    return index_BK if bool(found_BK.all()) else None
