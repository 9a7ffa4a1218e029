"""Experts: each proposes next items for histories, and says how probable any item is.

The codes expert generates semantic IDs by beam search, the dense expert compares its state with a vector of each
item, the neighbour expert looks up which items are near those of the history. They err differently, so that together
they are better than any one (`rqrec.retrieval.ensemble`).

Shapes: B histories, K items of an expert's list, C candidates, N items of the catalogue, D width, M neighbours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
from rqrec.knn.index import KnnIndex
from rqrec.models.sasrec import SasRec
from rqrec.retrieval.beam_search import rank_by_quota
from rqrec.retrieval.ranking import Ranked, padded, rank_scores
from rqrec.retrieval.retriever import Retriever

MAX_LOGITS = 2**24  # of the dense expert at once: 64 MB


class Constraints(NamedTuple):
    """Which items may be recommended."""

    exclude_seen: bool = True
    """Whether the items of each history are excluded."""
    allowed_N: Tensor | None = None
    """bool by item index, on the experts' device; None: every item."""
    max_per_code: int | None = None
    """Maximum number of items of a list that share their first code; None: any number."""


class Proposal(NamedTuple):
    """What an expert says about a batch of histories."""

    ranked: Ranked
    """The most probable items that the constraints allow, with log-probabilities."""
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
    first_codes_N: Tensor | None = None
    """The first code of each item in the table that `max_per_code` means; None: that of the retriever."""

    @torch.inference_mode()
    def propose(self, histories: Histories, count: int, constraints: Constraints) -> Proposal:
        """See `Expert`."""
        exclude_seen, allowed_N, quota = constraints
        if quota is None or self.first_codes_N is None:
            ranked, context = self.retriever.search(
                histories, count, exclude_seen=exclude_seen, allowed_N=allowed_N, max_per_code=quota
            )
        else:  # other codes than those that this search knows: choose from a whole beam
            width = max(count, self.retriever.beam_width)
            ranked, context = self.retriever.search(
                histories, width, exclude_seen=exclude_seen, allowed_N=allowed_N
            )
            groups_BK = self.first_codes_N[ranked.items.clamp(min=0)]
            ranked = _limited(ranked.items, ranked.scores, groups_BK, count, quota)
        return Proposal(ranked, lambda items_BC: self.retriever.item_log_probs(context, items_BC))


@dataclass(frozen=True)
class DenseExpert:
    """A model with a vector of each item: all items are scored, a softmax over the allowed ones."""

    model: SasRec
    first_codes_N: Tensor | None = None
    """The first code of each item, int64, for `max_per_code`."""

    @torch.inference_mode()
    def propose(self, histories: Histories, count: int, constraints: Constraints) -> Proposal:
        """See `Expert`."""
        states_BD, vectors_ND = self.model.encode(histories), self.model.item_vectors()
        seen_BX = torch.from_numpy(histories.items_BT).to(states_BD.device)
        rows = max(1, MAX_LOGITS // len(vectors_ND))
        lists, totals = [], []
        for states_RD, seen_RX in zip(states_BD.split(rows), seen_BX.split(rows), strict=True):
            logits_RN = (states_RD @ vectors_ND.T).float()
            if constraints.allowed_N is not None:
                logits_RN.masked_fill_(~constraints.allowed_N, -torch.inf)
            if constraints.exclude_seen:
                _exclude(logits_RN, seen_RX)
            # A history with no allowed item gets no item, whatever its total.
            total_R1 = logits_RN.logsumexp(1, keepdim=True).nan_to_num(neginf=0.0)
            totals.append(total_R1)
            lists.append(_best(logits_RN - total_R1, count, self.first_codes_N, constraints.max_per_code))
        total_B1 = torch.cat(totals)

        def log_probs(items_BC: Tensor) -> Tensor:
            return (vectors_ND[items_BC.clamp(min=0)] @ states_BD[:, :, None])[:, :, 0].float() - total_B1

        ranked = Ranked(torch.cat([one.items for one in lists]), torch.cat([one.scores for one in lists]))
        return Proposal(ranked, log_probs)


@dataclass(frozen=True)
class NeighbourExpert:
    """Neighbours of the history's items (kNN-LM, arXiv 1911.00172): probabilities proportional to their scores."""

    index: KnnIndex
    first_codes_N: Tensor | None = None
    """The first code of each item, int64, for `max_per_code`."""

    @torch.inference_mode()
    def propose(self, histories: Histories, count: int, constraints: Constraints) -> Proposal:
        """See `Expert`."""
        found = self.index.retrieve(
            histories, exclude_seen=constraints.exclude_seen, allowed_N=constraints.allowed_N
        )
        total_B1 = found.scores_BM.sum(1, keepdim=True)
        log_p_BM = (found.scores_BM / total_B1.clamp(min=torch.finfo(torch.float32).tiny)).log()
        if constraints.max_per_code is None:
            ranked = padded(found.items_BM, log_p_BM, count)
        else:
            groups_BM = first_codes(self.first_codes_N)[found.items_BM.clamp(min=0)]
            ranked = _limited(found.items_BM, log_p_BM, groups_BM, count, constraints.max_per_code)
        items_BM, order_BM = found.items_BM.sort(dim=1)
        sorted_log_p_BM = log_p_BM.gather(1, order_BM)

        def log_probs(items_BC: Tensor) -> Tensor:
            if not items_BM.shape[1]:
                return torch.full(items_BC.shape, -torch.inf, device=items_BC.device)
            at_BC = torch.searchsorted(items_BM, items_BC.contiguous()).clamp_(max=items_BM.shape[1] - 1)
            unknown_BC = items_BM.gather(1, at_BC) != items_BC
            return sorted_log_p_BM.gather(1, at_BC).masked_fill(unknown_BC, -torch.inf)

        return Proposal(ranked, log_probs)


def _exclude(logits_RN: Tensor, items_RX: Tensor) -> None:
    """Set the logits of these items (padded with PADDING) to minus infinity."""
    rows, columns = (items_RX != PADDING).nonzero(as_tuple=True)
    logits_RN[rows, items_RX[rows, columns]] = -torch.inf


def _best(log_p_BN: Tensor, count: int, first_codes_N: Tensor | None, quota: int | None) -> Ranked:
    """The `count` most probable items of the catalogue, at most `quota` with the same first code."""
    if quota is None:
        return rank_scores(log_p_BN, count)
    items_BN = torch.arange(log_p_BN.shape[1], device=log_p_BN.device).expand_as(log_p_BN)
    return _limited(items_BN, log_p_BN, first_codes(first_codes_N).expand_as(log_p_BN), count, quota)


def _limited(items_BM: Tensor, log_p_BM: Tensor, groups_BM: Tensor, count: int, quota: int) -> Ranked:
    order_BM, over_BM = rank_by_quota(log_p_BM, items_BM.clamp(min=0), groups_BM, quota)
    log_p_BM = log_p_BM.masked_fill(over_BM, -torch.inf)
    return padded(items_BM.gather(1, order_BM), log_p_BM.gather(1, order_BM), count)


def first_codes(first_codes_N: Tensor | None) -> Tensor:
    """The given first codes of items. Raises ValueError if there are none."""
    if first_codes_N is None:
        raise ValueError("max_per_code needs semantic IDs, but these experts have none: leave it out.")
    return first_codes_N
