"""What may be recommended: which items, how many of a group, and which are preferred.

Shapes: B histories, N items of the catalogue, C candidates, G groups of an item (at most), K items of a list.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rqrec.data.ids import PADDING
from rqrec.retrieval.ranking import Ranked, order_keys


class Limit(NamedTuple):
    """At most so many items of a list belong to the same group."""

    groups_NG: Tensor
    """int64: the groups of each item, each once, padded with PADDING; an item of no group has no limit."""
    most: int
    """At least 1."""


@lru_cache(maxsize=16)
def both(one_N: Tensor, other_N: Tensor) -> Tensor:
    """The items that both allow, bool [N]: the same tensor for the same tensors, so that a search remembers it."""
    return one_N & other_N


class ItemRules(NamedTuple):
    """What rules mean for each item of a catalogue; tensors are on the experts' device."""

    allowed_N: Tensor | None = None
    """bool: which items may be recommended; None: every item."""
    boost_N: Tensor | None = None
    """float32, added to the log-probability of each item before items are ranked; None: 0."""
    limits: tuple[Limit, ...] = ()
    """All of them hold for every list."""


class Constraints(NamedTuple):
    """What each expert obeys; limits concern the whole list, and are applied to the candidates of all experts."""

    exclude_seen: bool = True
    """Whether the items of each history are excluded."""
    allowed_N: Tensor | None = None
    """See `ItemRules`."""
    boost_N: Tensor | None = None
    """See `ItemRules`."""


def best_of(
    items_BC: Tensor, scores_BC: Tensor, said: Mapping[str, Tensor], count: int, limits: Sequence[Limit]
) -> Ranked:
    """The best candidates within limits, with what each expert said of them; see `choose`."""
    columns_BK = choose(scores_BC, items_BC, count, limits)

    def chosen(values_BC: Tensor, padding: float) -> Tensor:
        if not values_BC.shape[1]:
            return values_BC.new_full(columns_BK.shape, padding)
        return values_BC.gather(1, columns_BK.clamp(min=0)).masked_fill(columns_BK == PADDING, padding)

    experts = {name: chosen(log_p_BC, -torch.inf) for name, log_p_BC in said.items()}
    return Ranked(chosen(items_BC, PADDING), chosen(scores_BC, -torch.inf), experts)


def choose(scores_BC: Tensor, items_BC: Tensor, count: int, limits: Sequence[Limit] = ()) -> Tensor:
    """Columns int64 [B, count] of the best candidates in descending order, ties by item index.

    The list is what remains of all candidates in order if one goes down and passes over each item of a group that has
    its most items already. `items_BC` (int64) are the candidates, with minus infinity as the score of those that must
    not be chosen. Padded with PADDING.
    """
    order_BC = order_keys(scores_BC, items_BC.clamp(min=0)).argsort(dim=1, descending=True)
    possible_BC = scores_BC.gather(1, order_BC).isfinite()
    if not limits:
        columns_BK = order_BC.masked_fill(~possible_BC, PADDING)[:, :count]
        return functional.pad(columns_BK, (0, count - columns_BK.shape[1]), value=PADDING)
    groups = [limit.groups_NG[items_BC.gather(1, order_BC).clamp(min=0)] for limit in limits]
    counts = [torch.zeros_like(groups_BCG) for groups_BCG in groups]  # of chosen items in each group
    chosen = []
    for _ in range(count if possible_BC.shape[1] else 0):
        found_B1, best_B1 = possible_BC.max(
            dim=1, keepdim=True
        )  # the first one, as max returns the first of equals
        chosen.append(order_BC.gather(1, best_B1).masked_fill(~found_B1, PADDING))
        possible_BC = possible_BC.scatter(1, best_B1, False)
        for limit, groups_BCG, counts_BCG in zip(limits, groups, counts, strict=True):
            own_BG = groups_BCG.take_along_dim(best_B1[:, :, None], 1)[:, 0]
            own_BG = own_BG.masked_fill(~found_B1 | (own_BG == PADDING), PADDING - 1)  # equal to no group
            counts_BCG += (groups_BCG[..., None] == own_BG[:, None, None]).any(-1)
            possible_BC = possible_BC & ~(counts_BCG >= limit.most).any(2)
    columns_BK = torch.cat(chosen, dim=1) if chosen else order_BC[:, :0]
    return functional.pad(columns_BK, (0, count - columns_BK.shape[1]), value=PADDING)


def in_full_groups(list_K: Tensor, limits: Sequence[Limit]) -> Tensor:
    """Which items belong to a group of which a list has its most items, bool [N]; `limits` has at least one."""
    full_N = torch.zeros(len(limits[0].groups_NG), dtype=torch.bool, device=list_K.device)
    for groups_NG, most in limits:
        groups, counts = groups_NG[list_K].flatten().unique(return_counts=True)
        full_N |= torch.isin(groups_NG, groups[(counts >= most) & (groups != PADDING)]).any(1)
    return full_N
