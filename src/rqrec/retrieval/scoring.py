"""Log-probabilities under a model: of the next codes, of given items, and of every item of a trie.

Shapes: B batch, K prefixes or items of each history, D distinct prefixes, l codes of a prefix, C children of a node
(at most), V codes of a level, W prefixes that have a choice (at most), R = B x W, L levels, N items.
"""

from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from rqrec.core.pausing import pause
from rqrec.models.retrieval_model import Batch, RetrievalModel
from rqrec.models.trie_softmax import log_probs_of_children
from rqrec.tokenizer.trie import Children, Trie

ContextT = TypeVar("ContextT")


def next_log_probs(
    model: RetrievalModel[ContextT], context: ContextT, trie: Trie, prefix_BKl: Tensor, nodes_BK: Tensor
) -> tuple[Children, Tensor]:
    """The children of K nodes of each history, and log p(child | history, prefix) float32 [B, K, C].

    `prefix_BKl` has the codes of the nodes. Prefixes with a single child have log-probability 0 without a call of the
    model, which reads only as many prefixes as one of the histories has with a choice.
    """
    pause()
    children = trie.children(prefix_BKl.shape[2], nodes_BK)
    log_probs_BKC = torch.zeros_like(children.codes, dtype=torch.float32)
    log_probs_BKC.masked_fill_(~children.exists, -torch.inf)
    has_choice_BK = trie.n_children(prefix_BKl.shape[2], nodes_BK) > 1
    widest = int(has_choice_BK.sum(1).max()) if len(nodes_BK) else 0
    if widest == 0:
        return children, log_probs_BKC
    if widest == nodes_BK.shape[1]:
        return children, log_probs_of_children(
            model.next_logits(context, prefix_BKl), children.codes, children.exists
        )
    chosen_BW = has_choice_BK.byte().argsort(dim=1, descending=True, stable=True)[:, :widest]
    # Whole rows are copied: gathering their elements one by one would take longer than the model.
    n_batch, n_nodes = nodes_BK.shape
    rows_R = (chosen_BW + n_nodes * torch.arange(n_batch, device=nodes_BK.device)[:, None]).flatten()

    def chosen(part: Tensor) -> Tensor:
        return part.flatten(0, 1).index_select(0, rows_R).unflatten(0, (n_batch, widest))

    logits_BWV = model.next_logits(context, chosen(prefix_BKl))
    log_probs_BWC = log_probs_of_children(logits_BWV, chosen(children.codes), chosen(children.exists))
    log_probs_BKC.view(n_batch * n_nodes, -1).index_copy_(0, rows_R, log_probs_BWC.flatten(0, 1))
    return children, log_probs_BKC


@dataclass
class ItemPaths:
    """K items of each history, whose codes are scored level by level, alone or beside other prefixes.

    A prefix that several items of a history share is read once: of items that are alike, most begin alike.
    """

    trie: Trie
    items_BK: Tensor
    """Item indices int64, all of the trie."""
    by_level: list[Tensor] = field(default_factory=list)
    """log p(code | history, codes before it) of each item, float32 [B, K], for the levels that were read so far."""

    def prefixes(self) -> tuple[Tensor, Tensor]:
        """What the next level needs: the codes int64 [B, D, l] and the nodes int64 [B, D] of distinct prefixes."""
        level = len(self.by_level)
        nodes_BD, self._which_BK = _distinct(self.trie.nodes_of_items(self.items_BK, level))
        return _codes_of(self.trie, level, nodes_BD), nodes_BD

    def read(self, children: Children, log_probs_BDC: Tensor) -> None:
        """Score the next level's codes, given what `next_log_probs` says of its `prefixes`."""
        nodes_BK = self.trie.nodes_of_items(self.items_BK, len(self.by_level) + 1)
        own_BK = nodes_BK - children.nodes[:, :, 0].gather(1, self._which_BK)
        cells_BK = self._which_BK * log_probs_BDC.shape[2] + own_BK
        self.by_level.append(log_probs_BDC.flatten(1).gather(1, cells_BK))


def code_log_probs(
    model: RetrievalModel[ContextT], context: ContextT, trie: Trie, items_BK: Tensor
) -> Tensor:
    """log p(code | history, codes before it) for each code of K items of each history, float32 [B, K, L]."""
    paths = ItemPaths(trie, items_BK)
    for _ in range(trie.n_levels):
        paths.read(*next_log_probs(model, context, trie, *paths.prefixes()))
    return torch.stack(paths.by_level, dim=2)


def _distinct(nodes_BK: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct nodes of each row, int64 [B, D] (padded with the last one), and each node's column in them."""
    sorted_BK, order_BK = nodes_BK.sort(dim=1)
    is_new_BK = torch.ones_like(sorted_BK, dtype=torch.bool)
    is_new_BK[:, 1:] = sorted_BK[:, 1:] != sorted_BK[:, :-1]
    column_BK = is_new_BK.cumsum(1) - 1
    width = int(column_BK.max()) + 1 if column_BK.numel() else 0
    distinct_BD = sorted_BK[:, -1:].repeat(1, width).scatter_(1, column_BK, sorted_BK)
    return distinct_BD, torch.empty_like(column_BK).scatter_(1, order_BK, column_BK)


def _codes_of(trie: Trie, depth: int, nodes_BK: Tensor) -> Tensor:
    """The codes of nodes at a depth, int64 [B, K, depth]."""
    items_BK = trie.item_of_leaf[trie.depths[depth].leaf_start[nodes_BK]].long()  # one below each node
    codes = [
        trie.depths[above].code[trie.nodes_of_items(items_BK, above)].long() for above in range(1, depth + 1)
    ]
    return torch.stack(codes, dim=2) if codes else nodes_BK[:, :, None][:, :, :0]


@torch.inference_mode()
def score_items(model: RetrievalModel[ContextT], batch: Batch, trie: Trie, *, chunk: int = 512) -> Tensor:
    """The exact log-probability of every item of the trie for each history, float32 [B, N].

    The sum over levels of log p(code | history, codes before it), without any search: the children of every node are
    scored, those of `chunk` nodes at a time. Slow, but the reference for beam search.
    """
    context = model.encode(batch)
    n_batch, device = len(batch.lengths_B), batch.lengths_B.device
    scores_BK = torch.zeros(n_batch, 1, device=device)
    prefix_Kl = torch.zeros(1, 0, dtype=torch.int64, device=device)
    for _ in range(trie.n_levels):
        scores, prefixes = [], []
        for nodes_K in torch.arange(len(prefix_Kl), device=device).split(chunk):
            children, log_probs_BKC = next_log_probs(
                model, context, trie, prefix_Kl[nodes_K].expand(n_batch, -1, -1), nodes_K.expand(n_batch, -1)
            )
            exists_KC = children.exists[0]
            scores.append((scores_BK[:, nodes_K, None] + log_probs_BKC)[:, exists_KC])
            parents = nodes_K.repeat_interleave(exists_KC.sum(1))
            prefixes.append(torch.cat([prefix_Kl[parents], children.codes[0][exists_KC][:, None]], dim=1))
        # The children of consecutive nodes are consecutive nodes of the next depth.
        scores_BK, prefix_Kl = torch.cat(scores, dim=1), torch.cat(prefixes)
    return scores_BK[:, trie.leaf_of_item]
