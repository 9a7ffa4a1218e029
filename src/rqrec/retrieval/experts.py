"""Experts: each proposes next items for histories, and says how probable any item is.

The codes expert generates semantic IDs by beam search, the dense expert compares its state with a vector of each
item, the neighbour expert looks up which items are near those of the history. They err differently, so that together
they are better than any one (`rqrec.retrieval.ensemble`).

Shapes: B histories, R of them at a time, T items of a history, X excluded items, K items of an expert's list, C
candidates, N items of the catalogue, D width, M neighbours or items that an index finds, P most popular items, S
items of a sample.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
from rqrec.knn.index import KnnIndex, is_in
from rqrec.models.sasrec import SasRec
from rqrec.retrieval.constraints import Constraints
from rqrec.retrieval.ranking import Ranked, order_keys, padded, rank_scores
from rqrec.retrieval.retriever import Retriever
from rqrec.retrieval.sampling import log_sum
from rqrec.retrieval.vector_index import VectorIndex

MAX_LOGITS = 2**24  # of the dense expert at once: 64 MB
MIN_ALLOWED = 0.5  # share of the items from which an index is asked for them


class Proposal(NamedTuple):
    """What an expert says about a batch of histories."""

    ranked: Ranked
    """The best items that the constraints allow; a score is a log-probability plus the item's boost."""
    log_probs: Callable[[Tensor], Tensor]
    """From item indices int64 [B, C] (padded with PADDING) to log-probabilities float32 [B, C], minus infinity for an
    impossible item; meaningless at padding and for items that the constraints exclude."""


class Expert(Protocol):
    """A distribution over the next item. The probabilities of the allowed items sum to at most one."""

    def propose(self, histories: Histories, count: int, constraints: Constraints) -> Proposal:
        """At most `count` items for each history, and the log-probability of any other."""


@dataclass(frozen=True)
class CodesExpert:
    """A retrieval model: beam search proposes, teacher forcing scores the items of others."""

    retriever: Retriever

    @torch.inference_mode()
    def propose(
        self,
        histories: Histories,
        count: int,
        constraints: Constraints,
        others_BM: Tensor | None = None,
    ) -> Proposal:
        """See `Expert`. `others_BM`: items (padded with PADDING) that will be asked for, and are scored meanwhile."""
        ranked, others_log_p_BM, context = self.retriever.search(histories, count, constraints, others_BM)
        items_BX, log_p_BX = ranked.items, ranked.scores
        if constraints.boost_N is not None:
            log_p_BX = boosted(log_p_BX, -constraints.boost_N, items_BX)
        if others_BM is not None and others_log_p_BM is not None:
            items_BX, log_p_BX = (
                torch.cat([items_BX, others_BM], 1),
                torch.cat([log_p_BX, others_log_p_BM], 1),
            )
        known = _Known.of(items_BX, log_p_BX)

        def log_probs(items_BC: Tensor) -> Tensor:
            log_p_BC, unknown_BC = known.log_probs(items_BC)
            if (unknown_BC & (items_BC != PADDING)).any():
                return self.retriever.item_log_probs(context, items_BC)
            return log_p_BC

        return Proposal(ranked, log_probs)


class _Known(NamedTuple):
    """Log-probabilities of some items of each history, to be looked up."""

    items_BM: Tensor
    """Item indices int64 in ascending order."""
    log_p_BM: Tensor

    @classmethod
    def of(cls, items_BM: Tensor, log_p_BM: Tensor) -> "_Known":
        items_BM, order_BM = items_BM.sort(dim=1)
        return cls(items_BM, log_p_BM.gather(1, order_BM))

    def log_probs(self, items_BC: Tensor) -> tuple[Tensor, Tensor]:
        """The log-probabilities float32 [B, C] of items, and which of them are not known, bool [B, C]."""
        if not self.items_BM.shape[1]:
            unknown_BC = torch.ones_like(items_BC, dtype=torch.bool)
            return torch.full(items_BC.shape, -torch.inf, device=items_BC.device), unknown_BC
        at_BC = torch.searchsorted(self.items_BM, items_BC.contiguous())
        at_BC.clamp_(max=self.items_BM.shape[1] - 1)
        return self.log_p_BM.gather(1, at_BC), self.items_BM.gather(1, at_BC) != items_BC


@dataclass(frozen=True)
class DenseExpert:
    """A model with a vector of each item: a softmax over the allowed items.

    All items are scored. With an index, only those that it finds are, unless items are boosted or few are allowed;
    what the others add to the sum of the softmax is estimated from a sample.
    """

    model: SasRec
    index: VectorIndex | None = None

    @torch.inference_mode()
    def propose(self, histories: Histories, count: int, constraints: Constraints) -> Proposal:
        """See `Expert`."""
        states_BD, vectors_ND = self.model.encode(histories), self.model.item_vectors()
        seen_BX = torch.from_numpy(histories.items_BT).to(states_BD.device)
        if not constraints.exclude_seen:
            seen_BX = seen_BX[:, :0]
        if self.index is not None and _suits_index(constraints):
            found_BM = self.index.search(states_BD, count + seen_BX.shape[1], constraints.allowed_N)
            found_BM.masked_fill_(is_in(found_BM, seen_BX), PADDING)
            logits_BM = _products(states_BD, vectors_ND, found_BM)
            total_B1 = torch.logaddexp(
                _log_total(logits_BM), self._log_rest(states_BD, found_BM, constraints)
            )
            ranked = _sorted(found_BM, logits_BM - total_B1, count)
        else:
            rows = max(1, MAX_LOGITS // len(vectors_ND))
            lists, totals = [], []
            for states_RD, seen_RX in zip(states_BD.split(rows), seen_BX.split(rows), strict=True):
                logits_RN = (states_RD @ vectors_ND.T).float()
                if constraints.allowed_N is not None:
                    logits_RN.masked_fill_(~constraints.allowed_N, -torch.inf)
                exclude(logits_RN, seen_RX)
                totals.append(_log_total(logits_RN))
                lists.append(rank_scores(boosted(logits_RN - totals[-1], constraints.boost_N), count))
            total_B1 = torch.cat(totals)
            ranked = Ranked(torch.cat([one.items for one in lists]), torch.cat([one.scores for one in lists]))
        return Proposal(ranked, lambda items_BC: _products(states_BD, vectors_ND, items_BC) - total_B1)

    def _log_rest(self, states_BD: Tensor, found_BM: Tensor, constraints: Constraints) -> Tensor:
        """The logarithm of what the allowed items that the index did not find add to the softmax, about, [B, 1]."""
        assert self.index is not None
        sample_S, vectors_ND, allowed_N = (
            self.index.sample_S,
            self.model.item_vectors(),
            constraints.allowed_N,
        )
        n_allowed = self.index.n_items
        if allowed_N is not None:
            sample_S, n_allowed = sample_S[allowed_N[sample_S]], int(allowed_N.sum())
        logits_BS = (states_BD @ vectors_ND[sample_S].T).float()
        logits_BS.masked_fill_(is_in(sample_S.repeat(len(states_BD), 1), found_BM), -torch.inf)
        return log_sum(logits_BS, n_allowed)[:, None]


def _suits_index(constraints: Constraints) -> bool:
    """Whether an index finds the best items: it knows no boosts, and searches clusters that have no allowed items."""
    if constraints.boost_N is not None:
        return False
    return constraints.allowed_N is None or bool(constraints.allowed_N.float().mean() >= MIN_ALLOWED)


def _products(states_BD: Tensor, vectors_ND: Tensor, items_BC: Tensor) -> Tensor:
    """The logits of some items, float32 [B, C]; minus infinity at padding."""
    logits_BC = (vectors_ND[items_BC.clamp(min=0)] @ states_BD[:, :, None])[:, :, 0].float()
    return logits_BC.masked_fill(items_BC == PADDING, -torch.inf)


def _log_total(logits_BX: Tensor) -> Tensor:
    """What makes probabilities of logits, [B, 1]. A history with no allowed item gets no item, whatever it is."""
    return logits_BX.logsumexp(1, keepdim=True).nan_to_num(neginf=0.0)


@dataclass(frozen=True)
class NeighbourExpert:
    """Neighbours of the history's items (kNN-LM, arXiv 1911.00172): probabilities proportional to their scores."""

    index: KnnIndex
    alone: bool = False
    """Whether no other expert answers a history without neighbours, so that it gets the most popular items: with
    probabilities proportional to their training counts plus one."""

    @torch.inference_mode()
    def propose(self, histories: Histories, count: int, constraints: Constraints) -> Proposal:
        """See `Expert`."""
        found = self.index.retrieve(
            histories, exclude_seen=constraints.exclude_seen, allowed_N=constraints.allowed_N
        )
        total_B1 = found.scores_BM.sum(1, keepdim=True)
        log_p_BM = (found.scores_BM / total_B1.clamp(min=torch.finfo(torch.float32).tiny)).log()
        ranked = _ranked(found.items_BM, log_p_BM, count, constraints.boost_N)
        nothing_B1 = total_B1 <= 0
        known = _Known.of(found.items_BM, log_p_BM)

        def log_probs(items_BC: Tensor) -> Tensor:
            log_p_BC, unknown_BC = known.log_probs(items_BC)
            return log_p_BC.masked_fill(unknown_BC, -torch.inf)

        if not (self.alone and self.index.counts_N is not None and nothing_B1.any()):
            return Proposal(ranked, log_probs)
        popular = PopularityExpert(self.index.counts_N).propose(histories, count, constraints)
        items_BK = torch.where(nothing_B1, popular.ranked.items, ranked.items)
        scores_BK = torch.where(nothing_B1, popular.ranked.scores, ranked.scores)
        return Proposal(
            Ranked(items_BK, scores_BK),
            lambda items_BC: torch.where(nothing_B1, popular.log_probs(items_BC), log_probs(items_BC)),
        )


@dataclass(frozen=True)
class PopularityExpert:
    """The baseline: probabilities proportional to the training counts plus one, the same for everyone."""

    counts_N: Tensor

    @torch.inference_mode()
    def propose(self, histories: Histories, count: int, constraints: Constraints) -> Proposal:
        """See `Expert`; ties by item index."""
        weights_N = self.counts_N.double() + 1
        if constraints.allowed_N is not None:
            weights_N = weights_N.where(constraints.allowed_N, 0.0)
        seen_BX = torch.from_numpy(histories.items_BT).to(self.counts_N.device)
        if not constraints.exclude_seen:
            seen_BX = seen_BX[:, :0]
        seen_BX = seen_BX.sort(dim=1).values
        counted_BX = seen_BX != PADDING
        counted_BX[:, 1:] &= seen_BX[:, 1:] != seen_BX[:, :-1]
        seen_weights_BX = weights_N[seen_BX.clamp(min=0)].where(counted_BX, 0.0)
        total_B1 = weights_N.sum() - seen_weights_BX.sum(1, keepdim=True)
        log_w_N = weights_N.log()
        # All lists are parts of one: the best items, and as many more as a history can exclude.
        best = rank_scores(boosted(log_w_N.float(), constraints.boost_N)[None], count + seen_BX.shape[1])
        items_BP = best.items.expand(len(seen_BX), -1)
        scores_BP = (best.scores - total_B1.clamp(min=1).log()).float()
        scores_BP = scores_BP.masked_fill(is_in(items_BP.contiguous(), seen_BX), -torch.inf)
        order_BP = scores_BP.argsort(dim=1, descending=True, stable=True)
        ranked = padded(items_BP.gather(1, order_BP), scores_BP.gather(1, order_BP), count)

        def log_probs(items_BC: Tensor) -> Tensor:
            return (log_w_N[items_BC.clamp(min=0)] - total_B1.clamp(min=1).log()).float()

        return Proposal(ranked, log_probs)


def alone(expert: Expert) -> Expert:
    """The expert as it answers when no other is asked."""
    return replace(expert, alone=True) if isinstance(expert, NeighbourExpert) else expert


def boosted(log_p: Tensor, boost_N: Tensor | None, items: Tensor | None = None) -> Tensor:
    """Log-probabilities of all items [..., N], or of `items` (of the same shape), plus their boosts."""
    if boost_N is None:
        return log_p
    return log_p + (boost_N if items is None else boost_N[items.clamp(min=0)])


def _ranked(items_BM: Tensor, log_p_BM: Tensor, count: int, boost_N: Tensor | None) -> Ranked:
    """The best of items that are in descending order of log-probability."""
    if boost_N is not None:
        return _sorted(items_BM, boosted(log_p_BM, boost_N, items_BM), count)
    return padded(items_BM, log_p_BM, count)


def _sorted(items_BM: Tensor, scores_BM: Tensor, count: int) -> Ranked:
    order_BM = order_keys(scores_BM, items_BM.clamp(min=0)).argsort(dim=1, descending=True)
    return padded(items_BM.gather(1, order_BM), scores_BM.gather(1, order_BM), count)


def exclude(logits_RN: Tensor, items_RX: Tensor) -> None:
    """Set the logits of these items (padded with PADDING) to minus infinity."""
    rows, columns = (items_RX != PADDING).nonzero(as_tuple=True)
    logits_RN[rows, items_RX[rows, columns]] = -torch.inf
