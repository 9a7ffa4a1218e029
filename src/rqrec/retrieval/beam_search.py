"""Exact beam search over a trie, and exhaustive scoring to hold it against.

Shapes: B batch, K beams, C children of a node (the most at that depth), V codes, L levels, N items,
X excluded items.
"""

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from rqrec.data.ids import PADDING
from rqrec.retrieval.model import Batch, RetrievalModel
from rqrec.tokenizer.trie import Trie

ContextT = TypeVar("ContextT")


class Ranked(NamedTuple):
    """Items in falling order of score, ties by item index.

    `items` int64 [B, k], padded with PADDING where fewer than k items are allowed; `scores` float32 [B, k],
    minus infinity there. For a retrieval model a score is the item's log-probability.
    """

    items: Tensor
    scores: Tensor


def order_keys(scores: Tensor, ties: Tensor) -> Tensor:
    """int64 keys that sort as (score, then -tie): no two equal, so that top-k has one right answer.

    The bits of a float32 sort as an integer once negative ones are mirrored; the tie breaker, below 2**32,
    fills the low half.
    """
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 turns -0.0 into 0.0
    bits = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
    return (bits << 32) + (0xFFFFFFFF - ties)


@torch.inference_mode()
def beam_search(
    model: RetrievalModel[ContextT],
    batch: Batch,
    trie: Trie,
    k: int,
    *,
    beam_width: int,
    excluded_BX: Tensor | None = None,
) -> Ranked:
    """The k best items by log-probability among those that a beam of `beam_width` prefixes keeps.

    At each level the best `beam_width` legal prefixes are kept, out of all children of all beams. Illegal
    children are left out after the softmax, so that a score is the model's own log-probability (a forced
    code still costs what it costs). A prefix whose items are all excluded (`excluded_BX`, item indices
    padded with PADDING) is illegal too: no beam is spent on it. With `beam_width` >= N the result equals
    exhaustive scoring. Raises ValueError where beam_width < k.
    """
    if not 1 <= k <= beam_width:
        raise ValueError(f"k is {k} and the beam width {beam_width}: 1 <= k <= beam width is needed.")
    n_batch, device = len(batch.lengths_B), batch.codes_BTL.device
    if excluded_BX is None:
        excluded_BX = torch.full((n_batch, 0), PADDING, device=device)
    excluded_BX = trie.excluded_leaves(excluded_BX)
    context = model.encode(batch)
    nodes_BK = torch.zeros(n_batch, 1, dtype=torch.int64, device=device)
    scores_BK = torch.zeros(n_batch, 1, device=device)
    prefix_BKl = torch.zeros(n_batch, 1, 0, dtype=torch.int64, device=device)
    for level in range(trie.n_levels):
        log_probs_BKV = model.next_level(context, prefix_BKl)
        parents, children = trie.depths[level], trie.depths[level + 1]
        first_BK = parents.first_child[nodes_BK]
        end_BK = parents.first_child[nodes_BK + 1]
        nodes_BKC = first_BK[:, :, None] + torch.arange(parents.max_children, device=device)
        legal_BKC = (nodes_BKC < end_BK[:, :, None]) & scores_BK.isfinite()[:, :, None]
        nodes_BKC = torch.where(legal_BKC, nodes_BKC, 0)
        legal_BKC &= trie.n_allowed(level + 1, nodes_BKC.flatten(1), excluded_BX).view_as(nodes_BKC) > 0
        codes_BKC = children.code[nodes_BKC]
        scores_BKC = scores_BK[:, :, None] + log_probs_BKV.gather(2, codes_BKC)
        scores_BKC = scores_BKC.masked_fill(~legal_BKC, -torch.inf)

        keys_BM = order_keys(scores_BKC, children.first_item[nodes_BKC]).flatten(1)
        best_BK = keys_BM.topk(min(beam_width, keys_BM.shape[1]), dim=1).indices
        scores_BK = scores_BKC.flatten(1).gather(1, best_BK)
        nodes_BK = nodes_BKC.flatten(1).gather(1, best_BK)
        parents_BKl = (best_BK // parents.max_children)[:, :, None].expand(-1, -1, level)
        codes_BK1 = codes_BKC.flatten(1).gather(1, best_BK)[:, :, None]
        prefix_BKl = torch.cat([prefix_BKl.gather(1, parents_BKl), codes_BK1], dim=2)
    items_BK = torch.where(scores_BK.isfinite(), trie.item_of_leaf[nodes_BK], PADDING)
    return _resize(Ranked(items_BK, scores_BK), k)


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


def rank_scores(scores_BN: Tensor, k: int, *, excluded_BX: Tensor | None = None) -> Ranked:
    """The k best items of a full score matrix, without the excluded ones; ties by item index."""
    n_items = scores_BN.shape[1]
    if excluded_BX is not None and excluded_BX.shape[1]:
        # An extra column takes the padding, so that it masks no item.
        mask_BN = torch.zeros(len(scores_BN), n_items + 1, dtype=torch.bool, device=scores_BN.device)
        mask_BN.scatter_(1, torch.where(excluded_BX >= 0, excluded_BX, n_items), True)
        scores_BN = scores_BN.masked_fill(mask_BN[:, :n_items], -torch.inf)
    keys_BN = order_keys(scores_BN.float(), torch.arange(n_items, device=scores_BN.device))
    items_BK = keys_BN.topk(min(k, n_items), dim=1).indices
    scores_BK = scores_BN.gather(1, items_BK)
    return _resize(Ranked(items_BK.masked_fill(~scores_BK.isfinite(), PADDING), scores_BK), k)


def _resize(ranked: Ranked, k: int) -> Ranked:
    """Exactly k columns, padded where there are fewer."""
    short = max(0, k - ranked.items.shape[1])
    items = torch.nn.functional.pad(ranked.items[:, :k], (0, short), value=PADDING)
    scores = torch.nn.functional.pad(ranked.scores[:, :k], (0, short), value=-torch.inf)
    return Ranked(items, scores)
