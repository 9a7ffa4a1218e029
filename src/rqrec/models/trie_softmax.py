"""The trie's softmax: the probability of a code among those that continue the prefix of some item.

A softmax over all codes of a level would give probability to tuples that no item has, and a model would have to learn
which tuples exist. Here p(code | history, prefix) is a softmax over the children of the prefix's node in the trie of
the catalogue. So the probabilities of all items sum to one, also after items are added, and an only child has
probability 1 without any computation. Children are listed, not marked among all codes: a level may have many codes.

Shapes: M targets, L levels, R targets that have a choice at a level, C children of a node (at most), V codes of a
level.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rqrec.tokenizer.trie import Children, Trie


def log_probs_of_children(logits: Tensor, codes: Tensor, exists: Tensor) -> Tensor:
    """log p(child | its parent) float32 [..., C] from the logits [..., V] of a level; minus infinity at padding.

    `codes` int64 and `exists` bool, [..., C], are those of the children (see `rqrec.tokenizer.trie.Children`).
    """
    return logits.gather(-1, codes).float().masked_fill(~exists, -torch.inf).log_softmax(-1)


class Choice(NamedTuple):
    """The targets that have a choice at one level: the node of their codes so far has several children."""

    rows_R: Tensor
    """int64: which of the M targets these are."""
    children: Children
    """The children [R, C] of their nodes."""
    target_R: Tensor
    """int64: which of the children is the target's own."""


def choices_of(items_M: Tensor, trie: Trie) -> tuple[Choice, ...]:
    """The choices on the paths of target items (item indices int64), one for each level."""
    nodes_M, choices = torch.zeros_like(items_M), []
    for depth in range(trie.n_levels):
        rows_R = (trie.n_children(depth, nodes_M) > 1).nonzero()[:, 0]
        children = trie.children(depth, nodes_M[rows_R])
        nodes_M = trie.nodes_of_items(items_M, depth + 1)
        choices.append(Choice(rows_R, children, nodes_M[rows_R] - children.nodes[:, 0]))
    return tuple(choices)


class TrainingLoss(NamedTuple):
    """The loss of a batch, in nats."""

    total: Tensor
    """Scalar: the value that training minimises."""
    by_level_L: Tensor
    """The mean cross-entropy of each level, without label smoothing, detached."""

    @classmethod
    def from_logits(
        cls, logits_LRV: Sequence[Tensor], choices: Sequence[Choice], n_targets: int, smoothing: float = 0.0
    ) -> "TrainingLoss":
        """Mean over M targets and all levels of -log p(code), from the logits [R, V] of each level's choices.

        A target without a choice at a level has the loss 0 there. With label smoothing (arXiv 1512.00567, section 7)
        `total` is (1 - smoothing) x the cross-entropy + smoothing x the cross-entropy against the uniform
        distribution over the children.
        """
        totals, losses = [], []
        for logits_RV, choice in zip(logits_LRV, choices, strict=True):
            exists_RC = choice.children.exists
            log_probs_RC = log_probs_of_children(logits_RV, choice.children.codes, exists_RC)
            losses.append(-log_probs_RC.gather(1, choice.target_R[:, None]).sum() / n_targets)
            totals.append(losses[-1] * (1 - smoothing))
            if smoothing:
                even_R = log_probs_RC.masked_fill(~exists_RC, 0.0).sum(1) / exists_RC.sum(1)
                totals[-1] = totals[-1] - smoothing * even_R.sum() / n_targets
        return cls(torch.stack(totals).mean(), torch.stack(losses).detach())
