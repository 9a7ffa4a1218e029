"""The semantic IDs of a catalogue as a trie, stored in flat arrays on the model's device.

Each leaf is an item. Leaves are sorted by their codes, so the items below any node are one contiguous range of
leaves, and the number of allowed items below a node is the difference of two prefix sums.

Shapes: N items, L levels, B batch, C children of a node (at most), X excluded items, n_d nodes at depth d.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rqrec.tokenizer.semantic_ids import tuple_ranks

REMEMBERED = 8  # tensors of allowed items, and of boosts: 4 bytes for each node of the trie
MAX_ITEMS = 2**31 - 1  # int32 indices take half the memory of int64, and half the bandwidth of a search


@dataclass(frozen=True)
class Depth:
    """The n_d nodes at depth d, one for each distinct prefix of d codes, sorted by their codes."""

    leaf_start: Tensor
    """int32 [n_d + 1]: the items below node i are the leaves `leaf_start[i]:leaf_start[i + 1]`."""
    first_child: Tensor
    """int32 [n_d + 1]: node i's children are nodes `first_child[i]:first_child[i + 1]` of depth d + 1; empty
    for the leaves."""
    code: Tensor
    """int32 [n_d]: the last code of each node's prefix (unused at the root)."""
    n_items: Tensor
    """int32 [n_d]: the number of items below each node."""
    first_item: Tensor
    """int32 [n_d]: the smallest item index below each node, which breaks ties."""


class Children(NamedTuple):
    """The children of nodes of one depth, padded to C, the largest number of children that one of them has."""

    nodes: Tensor
    """int64 [..., C]: nodes of the next depth; at padding, a node of another parent."""
    codes: Tensor
    """int64 [..., C]: the last code of each child's prefix."""
    exists: Tensor
    """bool [..., C]: False at padding."""


@dataclass(frozen=True)
class Trie:
    """All prefixes of the catalogue's semantic IDs."""

    depths: tuple[Depth, ...]
    """`depths[d]` for d = 0 (the root) to L (the leaves)."""
    item_of_leaf: Tensor
    """int32 [n_items]: the item index of each leaf."""
    leaf_of_item: Tensor
    """int32 [N]: the leaf of each item index; `n_items`, which is past the last leaf, for items outside."""

    @property
    def n_items(self) -> int:
        """Number of items (leaves)."""
        return len(self.item_of_leaf)

    @property
    def n_levels(self) -> int:
        """Number of codes in a semantic ID."""
        return len(self.depths) - 1

    @cached_property
    def n_choices(self) -> tuple[int, ...]:
        """The number of nodes with more than one child at depths 0 to L - 1: those whose children need a model."""
        return tuple(int((depth.first_child.diff() > 1).sum()) for depth in self.depths[:-1])

    @classmethod
    def build(
        cls,
        codes_NL: NDArray[np.integer],
        device: torch.device | str = "cpu",
        *,
        inside_N: NDArray[np.bool_] | None = None,
    ) -> "Trie":
        """Build from the codes of all items, one unique row each, in O(N log N).

        `inside_N` (bool): the items that the trie has, None: all. Raises ValueError if two rows are equal (generation
        could not distinguish these items), or if there are more than 2^31 - 1 items.
        """
        rows_NL: NDArray[np.int64] = np.asarray(codes_NL, dtype=np.int64)
        n_all = len(rows_NL)
        items = np.arange(n_all) if inside_N is None else np.flatnonzero(inside_N)
        if inside_N is not None:
            rows_NL = rows_NL[items]
        n_items, n_levels = rows_NL.shape
        if n_items > MAX_ITEMS:
            raise ValueError(
                f"There are {n_items} items; a trie holds at most {MAX_ITEMS}. Split the catalogue."
            )
        by_codes = np.argsort(tuple_ranks(rows_NL), kind="stable")
        sorted_NL, order_N = rows_NL[by_codes].astype(np.int32), items[by_codes]
        # [i, l]: leaf i is the first one with its prefix of l + 1 codes.
        is_first_NL = np.ones((n_items, n_levels), dtype=bool)
        is_first_NL[1:] = np.logical_or.accumulate(sorted_NL[1:] != sorted_NL[:-1], axis=1)
        if not is_first_NL[:, -1].all():
            leaf = int(np.flatnonzero(~is_first_NL[:, -1])[0])
            raise ValueError(
                f"Items {order_N[leaf - 1]} and {order_N[leaf]} have the same semantic ID "
                f"{tuple(sorted_NL[leaf].tolist())}: make the rows unique with the deduplication code."
            )

        def on_device(array: NDArray[np.integer]) -> Tensor:
            return torch.from_numpy(array.astype(np.int32, copy=False)).to(device)

        item_of_leaf = on_device(order_N)
        starts = [np.zeros(min(n_items, 1), dtype=np.int64)]
        starts += [np.flatnonzero(is_first_NL[:, level]) for level in range(n_levels)]
        depths = []
        for depth, start in enumerate(starts):
            is_leaves = depth == n_levels
            bounds = np.append(start, n_items)
            first_child = bounds[:0] if is_leaves else np.searchsorted(starts[depth + 1], bounds)
            code = sorted_NL[start, depth - 1] if depth else np.zeros(len(start), dtype=np.int32)
            # One item per leaf: an expanded 1 takes no memory.
            n_below = (
                on_device(np.ones(1, dtype=np.int32)).expand(n_items)
                if is_leaves
                else on_device(np.diff(bounds))
            )
            first_item = item_of_leaf if is_leaves else on_device(np.minimum.reduceat(order_N, start))
            depths.append(
                Depth(
                    leaf_start=on_device(bounds),
                    first_child=on_device(first_child),
                    code=on_device(code),
                    n_items=n_below,
                    first_item=first_item,
                )
            )
        leaf_of_item = np.full(n_all, n_items, dtype=np.int32)
        leaf_of_item[order_N] = np.arange(n_items, dtype=np.int32)
        return cls(depths=tuple(depths), item_of_leaf=item_of_leaf, leaf_of_item=on_device(leaf_of_item))

    def node(self, prefix: Sequence[int]) -> int | None:
        """The node of depth len(prefix) with these codes, or None if no item starts with them."""
        if len(prefix) > self.n_levels:
            return None
        node = 0
        for parents, children, code in zip(self.depths, self.depths[1:], prefix, strict=False):
            first, end = parents.first_child[node : node + 2].tolist()
            codes = children.code[first:end].tolist()
            if code not in codes:
                return None
            node = first + codes.index(code)
        return node

    def nodes_of_items(self, items: Tensor, depth: int) -> Tensor:
        """The node at this depth on the path of each item of the trie (int64 indices of any shape), int64."""
        return torch.searchsorted(self.depths[depth].leaf_start, self.leaf_of_item[items], right=True) - 1

    def n_children(self, depth: int, nodes: Tensor) -> Tensor:
        """The number of children of nodes (int64, of any shape) at a depth below L."""
        first_child = self.depths[depth].first_child
        return first_child[nodes + 1] - first_child[nodes]

    def children(self, depth: int, nodes: Tensor) -> Children:
        """The children of nodes (int64, of any shape) at a depth below L, in ascending order of their codes."""
        counts, code = self.n_children(depth, nodes), self.depths[depth + 1].code
        widest = int(counts.max()) if counts.numel() else 1
        offsets_C = torch.arange(widest, device=nodes.device)
        below = self.depths[depth].first_child[nodes][..., None] + offsets_C
        below.clamp_(max=len(code) - 1)
        codes = code.index_select(0, below.flatten()).view_as(below).long()
        return Children(below, codes, offsets_C < counts[..., None])

    def items_sharing_prefix(self, item: int, depth: int) -> Tensor:
        """Item indices int32 of all items with the same first `depth` codes as `item`, which is included."""
        leaf_start = self.depths[depth].leaf_start
        node = self.nodes_of_items(torch.tensor(item, device=leaf_start.device), depth)
        return self.item_of_leaf[leaf_start[node] : leaf_start[node + 1]]

    def allowed_below(self, allowed_N: Tensor | None) -> tuple[Tensor, ...]:
        """The number of allowed items below each node: an integer tensor [n_d] for each depth d.

        `allowed_N` bool, by item index; None allows every item. Costs one prefix sum over the leaves, unless the same
        tensor was given before: rules recur with every request.
        """
        if allowed_N is None:
            return tuple(depth.n_items for depth in self.depths)
        return self._remembered_allowed(allowed_N)

    @cached_property
    def _remembered_allowed(self) -> Callable[[Tensor], tuple[Tensor, ...]]:
        return lru_cache(REMEMBERED)(
            self._allowed_below
        )  # tensors are equal keys if they are the same object

    def _allowed_below(self, allowed_N: Tensor) -> tuple[Tensor, ...]:
        sums = functional.pad(allowed_N[self.item_of_leaf].cumsum(0, dtype=torch.int32), (1, 0))
        return tuple(sums[depth.leaf_start].diff() for depth in self.depths)

    def largest_below(self, values_N: Tensor, allowed_N: Tensor | None) -> tuple[Tensor, ...]:
        """The largest value of an allowed item below each node, float32 [n_d] for each depth d.

        `values_N` float32, by item index; minus infinity below a node without an allowed item. Remembered like
        `allowed_below`.
        """
        return self._remembered_largest(values_N, allowed_N)

    @cached_property
    def _remembered_largest(self) -> Callable[[Tensor, Tensor | None], tuple[Tensor, ...]]:
        return lru_cache(REMEMBERED)(self._largest_below)

    def _largest_below(self, values_N: Tensor, allowed_N: Tensor | None) -> tuple[Tensor, ...]:
        if allowed_N is not None:
            values_N = values_N.masked_fill(~allowed_N, -torch.inf)
        largest = [values_N[self.item_of_leaf]]
        for depth in reversed(self.depths[:-1]):
            largest.append(torch.segment_reduce(largest[-1], "max", lengths=depth.first_child.diff().long()))
        return tuple(reversed(largest))

    def excluded_leaves(self, items_BX: Tensor, allowed_N: Tensor | None = None) -> Tensor:
        """The leaves of the allowed items among `items_BX` (item indices; PADDING is ignored).

        Returns int32 [B, X], each leaf once and in ascending order, padded with `n_items`, which is past the last
        leaf.
        """
        kept_BX = items_BX >= 0
        if allowed_N is not None:
            kept_BX = kept_BX & allowed_N[items_BX.clamp(min=0)]
        leaves_BX = torch.where(kept_BX, self.leaf_of_item[items_BX.clamp(min=0)], self.n_items)
        leaves_BX = leaves_BX.sort(dim=1).values
        repeated_BX = torch.zeros_like(leaves_BX, dtype=torch.bool)
        repeated_BX[:, 1:] = leaves_BX[:, 1:] == leaves_BX[:, :-1]
        return leaves_BX.masked_fill(repeated_BX, self.n_items).sort(dim=1).values

    def exhausted_nodes(self, depth: int, excluded_BX: Tensor, allowed: Tensor) -> Tensor:
        """The nodes at a depth whose allowed items are all excluded, int64 [B, X], possibly repeated.

        `excluded_BX` comes from `excluded_leaves`, `allowed` [n_d] from `allowed_below`. Padded with n_d.
        """
        n_nodes = len(allowed)
        leaf_start = self.depths[depth].leaf_start
        nodes_BX = torch.searchsorted(leaf_start, excluded_BX, right=True) - 1
        # Padding leaves fall past the last node. Nodes are in ascending order, as their leaves are.
        n_excluded_BX = torch.searchsorted(nodes_BX, nodes_BX, right=True)
        n_excluded_BX -= torch.searchsorted(nodes_BX, nodes_BX)
        exhausted_BX = n_excluded_BX == allowed[nodes_BX.clamp(max=n_nodes - 1)]
        return torch.where(exhausted_BX, nodes_BX, n_nodes)
