"""Exact beam search over a trie, and exhaustive scoring to hold it against.

Shapes: B batch, K beams, C children of a node (the most at that depth), M = K x C candidates, V codes,
L levels, N items, X excluded items.
"""

from typing import TypeVar

import torch
from torch import Tensor

from rqrec.data.ids import PADDING
from rqrec.models.interface import Batch, RetrievalModel
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
    excluded_BX: Tensor | None = None,
    allowed_N: Tensor | None = None,
    max_per_code: int | None = None,
) -> Ranked:
    """The k best items by log-probability among those that a beam of `beam_width` prefixes keeps.

    At each level the best `beam_width` legal prefixes are kept, out of all children of all beams. Illegal
    children are left out after the softmax, so that a score is the model's own log-probability (a forced
    code still costs what it costs). A prefix is illegal too where no item below it may be recommended: no
    beam is spent on it. Those that may are the items of `allowed_N` (bool by item index, for all users;
    None: every item) without the user's own `excluded_BX` (item indices padded with PADDING).
    With `beam_width` >= N the result equals exhaustive scoring.

    `max_per_code` allows that many of the k items under one code of the first level. So that there are
    enough codes for k, prefixes are kept first from each code's best ones, an equal share of the beam each.

    Raises ValueError where beam_width < k, or max_per_code < 1.
    """
    if not 1 <= k <= beam_width:
        raise ValueError(f"k is {k} and the beam width {beam_width}: 1 <= k <= beam width is needed.")
    if max_per_code is not None and max_per_code < 1:
        raise ValueError(f"max_per_code is {max_per_code}, but at least 1 item of a code must be allowed.")
    n_batch, device = len(batch.lengths_B), batch.codes_BTL.device
    if excluded_BX is None:
        excluded_BX = torch.full((n_batch, 0), PADDING, device=device)
    excluded_BX = trie.excluded_leaves(excluded_BX, allowed_N)
    allowed_below = trie.allowed_below(allowed_N)
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
            illegal_BKC |= _take(allowed_below[level + 1], nodes_BKC) == 0
        codes_BKC = _take(children.code, nodes_BKC).long()
        scores_BKC = log_probs_BKV.gather(2, codes_BKC).add_(scores_BK[:, :, None])
        scores_BKC.masked_fill_(illegal_BKC, -torch.inf)
        if excluded_BX.shape[1]:
            emptied_BX = trie.emptied(level + 1, excluded_BX, allowed_below[level + 1])
            _forbid(scores_BKC, first_BK, end_BK, emptied_BX)

        scores_BM, nodes_BM, codes_BM = (x.flatten(1) for x in (scores_BKC, nodes_BKC, codes_BKC))
        if max_per_code is None:
            best_BK = _best(scores_BM, nodes_BM, children.first_item, beam_width)
        else:
            codes_so_far_BKCl = prefix_BKl[:, :, None].expand(-1, -1, parents.max_children, -1)
            groups_BM = torch.cat([codes_so_far_BKCl, codes_BKC[..., None]], dim=3)[..., 0].flatten(1)
            last = level == trie.n_levels - 1
            share = max_per_code if last else max(max_per_code, beam_width // -(-k // max_per_code))
            order_BM, over_BM = _in_shares(scores_BM, nodes_BM, children.first_item, groups_BM, share)
            best_BK = order_BM[:, :beam_width]
            if last:
                scores_BM = scores_BM.masked_fill(over_BM, -torch.inf)
        scores_BK, nodes_BK = scores_BM.gather(1, best_BK), nodes_BM.gather(1, best_BK)
        parents_BKl = (best_BK // parents.max_children)[:, :, None].expand(-1, -1, level)
        codes_BK1 = codes_BM.gather(1, best_BK)[:, :, None]
        prefix_BKl = torch.cat([prefix_BKl.gather(1, parents_BKl), codes_BK1], dim=2)
    return padded(trie.item_of_leaf[nodes_BK].long(), scores_BK, k)


def _take(table: Tensor, index: Tensor) -> Tensor:
    """table[index] of a flat table, by the quicker kernel."""
    return table.index_select(0, index.flatten()).view_as(index)


def _forbid(scores_BKC: Tensor, first_BK: Tensor, end_BK: Tensor, nodes_BX: Tensor) -> None:
    """Set the scores of nodes to minus infinity, where they are among a beam's children [first, end)."""
    inside_BKX = (nodes_BX[:, None] >= first_BK[:, :, None]) & (nodes_BX[:, None] < end_BK[:, :, None])
    # The first beam is the one: beams that ended, and may repeat a node, come last.
    found_BX, beam_BX = inside_BKX.max(dim=1)
    place_BX = beam_BX * scores_BKC.shape[2] + nodes_BX - first_BK.gather(1, beam_BX)
    penalty_BX = torch.zeros_like(place_BX, dtype=scores_BKC.dtype).masked_fill_(found_BX, -torch.inf)
    scores_BKC.view(len(scores_BKC), -1).scatter_add_(1, place_BX.masked_fill(~found_BX, 0), penalty_BX)


def _best(scores_BM: Tensor, nodes_BM: Tensor, ties: Tensor, width: int) -> Tensor:
    """Places int64 [B, K] of the `width` best candidates in falling order; ties by the node's `ties`."""
    width = min(width, scores_BM.shape[1])
    values_BK, best_BK = scores_BM.topk(width, dim=1)
    threshold_B1 = values_BK[:, -1:]
    # Equal scores at the edge of the beam are rare, and only then does top-k leave a choice.
    edge_B = ((scores_BM >= threshold_B1).sum(1) > width) & threshold_B1[:, 0].isfinite()
    if edge_B.any():
        best_BK = order_keys(scores_BM, ties[nodes_BM]).topk(width, dim=1).indices
        values_BK = scores_BM.gather(1, best_BK)
    keys_BK = order_keys(values_BK, ties[nodes_BM.gather(1, best_BK)])
    return best_BK.gather(1, keys_BK.argsort(dim=1, descending=True))


def _in_shares(
    scores_BM: Tensor, nodes_BM: Tensor, ties: Tensor, groups_BM: Tensor, share: int
) -> tuple[Tensor, Tensor]:
    """Places int64 [B, M]: the best `share` of each group in falling order, then the others, then the illegal.

    With them comes, for each candidate, whether it is beyond its group's share.
    """
    order_BM = order_keys(scores_BM, ties[nodes_BM]).argsort(dim=1, descending=True)
    sorted_BM, by_group_BM = groups_BM.gather(1, order_BM).sort(dim=1, stable=True)
    ranks_BM = torch.arange(sorted_BM.shape[1], device=sorted_BM.device) - torch.searchsorted(
        sorted_BM, sorted_BM
    )
    over_BM = torch.zeros_like(order_BM, dtype=torch.bool).scatter_(1, by_group_BM, ranks_BM >= share)
    tier_BM = over_BM + 2 * scores_BM.gather(1, order_BM).isneginf()
    in_shares_BM = order_BM.gather(1, tier_BM.argsort(dim=1, stable=True))
    return in_shares_BM, torch.zeros_like(over_BM).scatter_(1, order_BM, over_BM)


@torch.inference_mode()
def score_items(
    model: RetrievalModel[ContextT], batch: Batch, codes_NL: Tensor, *, chunk: int = 512
) -> Tensor:
    """The exact log-probability of every item for every history, float32 [B, N].

    The sum over levels of log p(code | history, codes before it), without any search: the yardstick of beam
    search, and slow: L passes over all items.
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
