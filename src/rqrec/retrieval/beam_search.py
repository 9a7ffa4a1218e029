"""Beam search over a trie.

Shapes: B batch, K beams, l codes of a prefix, C children of a beam's node (at most), M = K x C candidates, N items, X
excluded items or all prefixes that are read at a level, D prefixes of items beside the beams.
"""

from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from rqrec.data.ids import PADDING
from rqrec.models.retrieval_model import Batch, RetrievalModel
from rqrec.retrieval.ranking import Ranked, best_columns, padded
from rqrec.retrieval.scoring import ItemPaths, next_log_probs
from rqrec.tokenizer.trie import Children, Trie

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
    boost_N: Tensor | None = None,
    beside: ItemPaths | None = None,
) -> Ranked:
    """The k items with the highest log-probability among those that a beam of `beam_width` prefixes reaches.

    At each level the best `beam_width` legal prefixes are kept, out of all children of all beams. A prefix is legal
    if an item below it may be recommended: an item in `allowed_N` (bool by item index, for all users; None: every
    item) that is not in the user's `excluded_BX` (item indices padded with PADDING). The softmax is over all children
    of a prefix, and illegal ones are masked after it, so a score is the model's log-probability: the only legal child
    still costs its log-probability if it has siblings. With `beam_width` >= N the result equals exhaustive scoring.

    `boost_N` (float32 by item index) is added to the log-probability of each item. A prefix is then kept for the best
    that its items can still get: its log-probability plus the largest boost of an allowed item below it.

    The codes of the items `beside` are scored as well, in the same calls of the model: a search of K items and
    scoring K others take little longer than the search.

    `context` is what the model's `encode` returns for the batch, if that was called before.

    Raises ValueError unless 1 <= k <= beam_width.
    """
    if not 1 <= k <= beam_width:
        raise ValueError(f"k is {k} and beam_width is {beam_width}, but 1 <= k <= beam_width is needed.")
    n_batch, device = len(batch.lengths_B), batch.codes_BTL.device
    if excluded_BX is None:
        excluded_BX = torch.full((n_batch, 0), PADDING, device=device)
    excluded_BX = trie.excluded_leaves(excluded_BX, allowed_N)
    allowed_below = trie.allowed_below(allowed_N)
    boost_below = None if boost_N is None else trie.largest_below(boost_N, allowed_N)
    if context is None:
        context = model.encode(batch)
    nodes_BK = torch.zeros(n_batch, 1, dtype=torch.int64, device=device)
    scores_BK = torch.zeros(n_batch, 1, device=device)
    prefix_BKl = torch.zeros(n_batch, 1, 0, dtype=torch.int64, device=device)
    for level in range(trie.n_levels):
        if beside is None:
            children, log_probs_BKC = next_log_probs(model, context, trie, prefix_BKl, nodes_BK)
        else:
            children, log_probs_BKC = _read_both(model, context, trie, prefix_BKl, nodes_BK, beside)
        scores_BKC = log_probs_BKC + scores_BK[:, :, None]
        if allowed_N is not None:
            scores_BKC.masked_fill_(_lookup(allowed_below[level + 1], children.nodes) == 0, -torch.inf)
        if excluded_BX.shape[1]:
            exhausted_BX = trie.exhausted_nodes(level + 1, excluded_BX, allowed_below[level + 1])
            _mask_nodes(scores_BKC, children, exhausted_BX)

        ties = trie.depths[level + 1].first_item
        scores_BM, nodes_BM, codes_BM = (x.flatten(1) for x in (scores_BKC, children.nodes, children.codes))
        hopes_BM = scores_BM if boost_below is None else scores_BM + boost_below[level + 1][nodes_BM]
        best_BK = best_columns(hopes_BM, beam_width, partial(_of_columns, nodes_BM, ties))
        scores_BK, nodes_BK = scores_BM.gather(1, best_BK), nodes_BM.gather(1, best_BK)
        parents_BKl = (best_BK // scores_BKC.shape[2])[:, :, None].expand(-1, -1, level)
        codes_BK1 = codes_BM.gather(1, best_BK)[:, :, None]
        prefix_BKl = torch.cat([prefix_BKl.gather(1, parents_BKl), codes_BK1], dim=2)
    # At the leaves, the best that an item can get is what it has.
    return padded(trie.item_of_leaf[nodes_BK].long(), hopes_BM.gather(1, best_BK), k)


def _read_both(
    model: RetrievalModel[ContextT],
    context: ContextT,
    trie: Trie,
    prefix_BKl: Tensor,
    nodes_BK: Tensor,
    beside: ItemPaths,
) -> tuple[Children, Tensor]:
    """`next_log_probs` of the beams, and of the prefixes of the items beside them in the same call."""
    other_BDl, other_BD = beside.prefixes()
    prefix_BXl, nodes_BX = torch.cat([prefix_BKl, other_BDl], dim=1), torch.cat([nodes_BK, other_BD], dim=1)
    children, log_probs_BXC = next_log_probs(model, context, trie, prefix_BXl, nodes_BX)
    parts = [nodes_BK.shape[1], other_BD.shape[1]]
    nodes, codes, exists = (part.split(parts, dim=1) for part in children)
    log_probs_BKC, log_probs_BDC = log_probs_BXC.split(parts, dim=1)
    beside.read(Children(nodes[1], codes[1], exists[1]), log_probs_BDC)
    return Children(nodes[0], codes[0], exists[0]), log_probs_BKC


def _lookup(table: Tensor, index: Tensor) -> Tensor:
    """table[index] of a 1-d table, with a faster kernel."""
    return table.index_select(0, index.flatten()).view_as(index)


def _mask_nodes(scores_BKC: Tensor, children: Children, nodes_BX: Tensor) -> None:
    """Set the scores of these nodes to minus infinity where they are among a beam's children."""
    first_BK = children.nodes[:, :, 0]
    end_BK = first_BK + children.exists.sum(2)
    inside_BKX = (nodes_BX[:, None] >= first_BK[:, :, None]) & (nodes_BX[:, None] < end_BK[:, :, None])
    # Take the first beam that has the node: illegal beams, which may repeat its parent, come last.
    found_BX, beam_BX = inside_BKX.max(dim=1)
    cell_BX = beam_BX * scores_BKC.shape[2] + nodes_BX - first_BK.gather(1, beam_BX)
    penalty_BX = torch.zeros_like(cell_BX, dtype=scores_BKC.dtype).masked_fill_(found_BX, -torch.inf)
    scores_BKC.view(len(scores_BKC), -1).scatter_add_(1, cell_BX.masked_fill(~found_BX, 0), penalty_BX)


def _of_columns(nodes_BM: Tensor, ties: Tensor, columns_BK: Tensor) -> Tensor:
    """The ties [B, K] of the nodes in some columns."""
    return ties[nodes_BM.gather(1, columns_BK)]
