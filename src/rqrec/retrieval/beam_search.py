"""Beam search over a trie, and exhaustive scoring to compare it with.

Shapes: B batch, K beams, C children of a node (at most, at that depth), M = K x C candidates, V codes,
L levels, N items, X excluded items.
"""

from typing import TypeVar

import torch
from torch import Tensor

from rqrec.data.ids import PADDING
from rqrec.models.retrieval_model import Batch, RetrievalModel
from rqrec.retrieval.ranking import Ranked, order_keys, padded
from rqrec.tokenizer.trie import Trie

ContextT = TypeVar("ContextT")


@torch.inference_mode()
def beam_search(
    model: RetrievalModel[ContextT],
    batch: Batch,
    trie: Trie,
    k: int,
    *,
    beam_width: int,
    context: ContextT | None = None,
    excluded_BX: Tensor | None = None,
    allowed_N: Tensor | None = None,
    max_per_code: int | None = None,
) -> Ranked:
    """The k items with the highest log-probability among those that a beam of `beam_width` prefixes reaches.

    At each level the best `beam_width` legal prefixes are kept, out of all children of all beams. A prefix is legal
    if an item below it may be recommended: an item in `allowed_N` (bool by item index, for all users; None: every
    item) that is not in the user's `excluded_BX` (item indices padded with PADDING). Illegal children are masked
    after the softmax, so a score is the model's log-probability: a code that is the only legal one still costs its
    log-probability. With `beam_width` >= N the result equals exhaustive scoring.

    At most `max_per_code` of the k items share their first code. So that enough first codes remain for k items, each
    first code has an equal quota of the beam, and prefixes within their quota are kept before any others.

    `context` is what the model's `encode` returns for the batch, if that was called before.

    Raises ValueError if beam_width < k or max_per_code < 1.
    """
    if not 1 <= k <= beam_width:
        raise ValueError(f"k is {k} and beam_width is {beam_width}, but 1 <= k <= beam_width is needed.")
    if max_per_code is not None and max_per_code < 1:
        raise ValueError(f"max_per_code is {max_per_code}, but must be at least 1.")
    n_batch, device = len(batch.lengths_B), batch.codes_BTL.device
    if excluded_BX is None:
        excluded_BX = torch.full((n_batch, 0), PADDING, device=device)
    excluded_BX = trie.excluded_leaves(excluded_BX, allowed_N)
    allowed_below = trie.allowed_below(allowed_N)
    if context is None:
        context = model.encode(batch)
    nodes_BK = torch.zeros(n_batch, 1, dtype=torch.int64, device=device)
    scores_BK = torch.zeros(n_batch, 1, device=device)
    prefix_BKl = torch.zeros(n_batch, 1, 0, dtype=torch.int64, device=device)
    for level in range(trie.n_levels):
        log_probs_BKV = model.next_level(context, prefix_BKl)
        parents, children = trie.depths[level], trie.depths[level + 1]
        first_BK, end_BK = parents.first_child[nodes_BK], parents.first_child[nodes_BK + 1]
        nodes_BKC = first_BK[:, :, None] + torch.arange(parents.max_children, device=device)
        illegal_BKC = nodes_BKC >= end_BK[:, :, None]
        nodes_BKC.clamp_(max=len(children.code) - 1)
        if allowed_N is not None:
            illegal_BKC |= _lookup(allowed_below[level + 1], nodes_BKC) == 0
        codes_BKC = _lookup(children.code, nodes_BKC).long()
        scores_BKC = log_probs_BKV.gather(2, codes_BKC).add_(scores_BK[:, :, None])
        scores_BKC.masked_fill_(illegal_BKC, -torch.inf)
        if excluded_BX.shape[1]:
            exhausted_BX = trie.exhausted_nodes(level + 1, excluded_BX, allowed_below[level + 1])
            _mask_nodes(scores_BKC, first_BK, end_BK, exhausted_BX)

        scores_BM, nodes_BM, codes_BM = (x.flatten(1) for x in (scores_BKC, nodes_BKC, codes_BKC))
        if max_per_code is None:
            best_BK = _best(scores_BM, nodes_BM, children.first_item, beam_width)
        else:
            codes_so_far_BKCl = prefix_BKl[:, :, None].expand(-1, -1, parents.max_children, -1)
            groups_BM = torch.cat([codes_so_far_BKCl, codes_BKC[..., None]], dim=3)[..., 0].flatten(1)
            last = level == trie.n_levels - 1
            quota = max_per_code if last else max(max_per_code, beam_width // -(-k // max_per_code))
            order_BM, over_BM = rank_by_quota(scores_BM, children.first_item[nodes_BM], groups_BM, quota)
            best_BK = order_BM[:, :beam_width]
            if last:
                scores_BM = scores_BM.masked_fill(over_BM, -torch.inf)
        scores_BK, nodes_BK = scores_BM.gather(1, best_BK), nodes_BM.gather(1, best_BK)
        parents_BKl = (best_BK // parents.max_children)[:, :, None].expand(-1, -1, level)
        codes_BK1 = codes_BM.gather(1, best_BK)[:, :, None]
        prefix_BKl = torch.cat([prefix_BKl.gather(1, parents_BKl), codes_BK1], dim=2)
    return padded(trie.item_of_leaf[nodes_BK].long(), scores_BK, k)


def _lookup(table: Tensor, index: Tensor) -> Tensor:
    """table[index] of a 1-d table, with a faster kernel."""
    return table.index_select(0, index.flatten()).view_as(index)


def _mask_nodes(scores_BKC: Tensor, first_BK: Tensor, end_BK: Tensor, nodes_BX: Tensor) -> None:
    """Set the scores of these nodes to minus infinity where they are among a beam's children [first, end)."""
    inside_BKX = (nodes_BX[:, None] >= first_BK[:, :, None]) & (nodes_BX[:, None] < end_BK[:, :, None])
    # Take the first beam that has the node: illegal beams, which may repeat its parent, come last.
    found_BX, beam_BX = inside_BKX.max(dim=1)
    cell_BX = beam_BX * scores_BKC.shape[2] + nodes_BX - first_BK.gather(1, beam_BX)
    penalty_BX = torch.zeros_like(cell_BX, dtype=scores_BKC.dtype).masked_fill_(found_BX, -torch.inf)
    scores_BKC.view(len(scores_BKC), -1).scatter_add_(1, cell_BX.masked_fill(~found_BX, 0), penalty_BX)


def _best(scores_BM: Tensor, nodes_BM: Tensor, ties: Tensor, width: int) -> Tensor:
    """Columns int64 [B, K] of the `width` best candidates in descending order; equal scores by the lower `ties`."""
    width = min(width, scores_BM.shape[1])
    values_BK, best_BK = scores_BM.topk(width, dim=1)
    threshold_B1 = values_BK[:, -1:]
    # The choice of top-k is arbitrary only if scores tie at the edge of the beam, which is rare.
    edge_B = ((scores_BM >= threshold_B1).sum(1) > width) & threshold_B1[:, 0].isfinite()
    if edge_B.any():
        best_BK = order_keys(scores_BM, ties[nodes_BM]).topk(width, dim=1).indices
        values_BK = scores_BM.gather(1, best_BK)
    keys_BK = order_keys(values_BK, ties[nodes_BM.gather(1, best_BK)])
    return best_BK.gather(1, keys_BK.argsort(dim=1, descending=True))


def rank_by_quota(scores_BM: Tensor, ties_BM: Tensor, groups_BM: Tensor, quota: int) -> tuple[Tensor, Tensor]:
    """Columns int64 [B, M]: the best `quota` of each group in descending order, then the others, then the illegal.

    Also returns whether each candidate is beyond its group's quota, bool [B, M].
    """
    order_BM = order_keys(scores_BM, ties_BM).argsort(dim=1, descending=True)
    sorted_BM, by_group_BM = groups_BM.gather(1, order_BM).sort(dim=1, stable=True)
    ranks_BM = torch.arange(sorted_BM.shape[1], device=sorted_BM.device) - torch.searchsorted(
        sorted_BM, sorted_BM
    )
    over_BM = torch.zeros_like(order_BM, dtype=torch.bool).scatter_(1, by_group_BM, ranks_BM >= quota)
    tier_BM = over_BM + 2 * scores_BM.gather(1, order_BM).isneginf()
    ranked_BM = order_BM.gather(1, tier_BM.argsort(dim=1, stable=True))
    return ranked_BM, torch.zeros_like(over_BM).scatter_(1, order_BM, over_BM)


@torch.inference_mode()
def score_items(
    model: RetrievalModel[ContextT], batch: Batch, codes_NL: Tensor, *, chunk: int = 512
) -> Tensor:
    """The exact log-probability of every item for every history, float32 [B, N].

    The sum over levels of log p(code | history, codes before it), without any search. Slow (L passes over all
    items), but the reference for beam search.
    """
    context = model.encode(batch)
    chunks = []
    for codes_CL in codes_NL.split(chunk):
        prefix_BCL = codes_CL.expand(len(batch.lengths_B), -1, -1)
        scores_BC = torch.zeros(prefix_BCL.shape[:2], device=codes_NL.device)
        for level in range(codes_NL.shape[1]):
            log_probs_BCV = model.next_level(context, prefix_BCL[:, :, :level])
            scores_BC += log_probs_BCV.gather(2, prefix_BCL[:, :, level, None])[:, :, 0]
        chunks.append(scores_BC)
    return torch.cat(chunks, dim=1)
