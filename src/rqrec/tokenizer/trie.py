"""The legal tuples of codes as a trie in flat arrays, on the model's device.

Leaves are the items, sorted by their codes, so that the items below any node are one contiguous range of
leaves. That makes "how many allowed items are below this node" a subtraction of two prefix sums.

Shapes: N items, L levels, B batch, K beams, C children, X excluded items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rqrec.tokenizer.semantic_ids import tuple_ranks

MOST_ITEMS = 2**31 - 1  # indices are int32: half the memory of int64, and of what a search reads


@dataclass(frozen=True)
class Depth:
    """The nodes of one depth d (prefixes of d codes), n_d of them, in the order of their codes.

    `leaf_start` int32 [n_d + 1]: the items below node i are the leaves `leaf_start[i]:leaf_start[i + 1]`.
    `first_child` int32 [n_d + 1]: its children are nodes `first_child[i]:first_child[i + 1]` of depth d + 1;
    empty for the leaves.
    `code` int32 [n_d]: the last code of the node's prefix (unused at the root).
    `n_items` int32 [n_d]: how many items are below the node.
    `first_item` int32 [n_d]: the smallest item index below the node, by which ties are broken.
    """

    leaf_start: Tensor
    first_child: Tensor
    code: Tensor
    n_items: Tensor
    first_item: Tensor
    max_children: int


@dataclass(frozen=True)
class Trie:
    """All prefixes of the catalogue's semantic IDs.

    `depths[d]` for d = 0 (the root) to L; the nodes of depth L are the leaves. `item_of_leaf` and
    `leaf_of_item` int32 [N] convert between the order of codes and item indices.
    """

    depths: tuple[Depth, ...]
    item_of_leaf: Tensor
    leaf_of_item: Tensor

    @property
    def n_items(self) -> int:
        """Number of items (leaves)."""
        return len(self.item_of_leaf)

    @property
    def n_levels(self) -> int:
        """Number of codes in a semantic ID."""
        return len(self.depths) - 1

    @classmethod
    def build(cls, codes_NL: NDArray[np.integer], device: torch.device | str = "cpu") -> "Trie":
        """Build from the codes of all items, one unique row each, in O(N log N).

        Raises ValueError on repeated rows: items that share a tuple can't be told apart by a decoder; and on
        more than 2^31 - 1 items.
        """
        rows_NL: NDArray[np.int64] = np.asarray(codes_NL, dtype=np.int64)
        n_items, n_levels = rows_NL.shape
        if n_items > MOST_ITEMS:
            raise ValueError(
                f"There are {n_items} items; a trie holds at most {MOST_ITEMS}. Split the catalogue."
            )
        order_N = np.argsort(tuple_ranks(rows_NL), kind="stable")
        sorted_NL = rows_NL[order_N].astype(np.int32)
        # fresh[i, l]: leaf i is the first one of its prefix of l + 1 codes.
        fresh_NL = np.ones((n_items, n_levels), dtype=bool)
        fresh_NL[1:] = np.logical_or.accumulate(sorted_NL[1:] != sorted_NL[:-1], axis=1)
        if not fresh_NL[:, -1].all():
            leaf = int(np.flatnonzero(~fresh_NL[:, -1])[0])
            raise ValueError(
                f"Items {order_N[leaf - 1]} and {order_N[leaf]} have the same semantic ID "
                f"{tuple(sorted_NL[leaf].tolist())}: make the rows unique with the deduplication code."
            )

        def on_device(array: NDArray[np.integer]) -> Tensor:
            return torch.from_numpy(array.astype(np.int32, copy=False)).to(device)

        item_of_leaf = on_device(order_N)
        starts = [np.zeros(min(n_items, 1), dtype=np.int64)]
        starts += [np.flatnonzero(fresh_NL[:, level]) for level in range(n_levels)]
        depths = []
        for depth, start in enumerate(starts):
            is_leaves = depth == n_levels
            bounds = np.append(start, n_items)
            first_child = bounds[:0] if is_leaves else np.searchsorted(starts[depth + 1], bounds)
            code = sorted_NL[start, depth - 1] if depth else np.zeros(len(start), dtype=np.int32)
            # A leaf is one item, so that nothing has to be kept to say so.
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
                    max_children=int(np.diff(first_child).max(initial=0)),
                )
            )
        leaf_of_item = np.empty(n_items, dtype=np.int32)
        leaf_of_item[order_N] = np.arange(n_items, dtype=np.int32)
        return cls(depths=tuple(depths), item_of_leaf=item_of_leaf, leaf_of_item=on_device(leaf_of_item))

    def node(self, prefix: Sequence[int]) -> int | None:
        """The node of depth len(prefix) that has these codes, or None where no item starts with them."""
        if len(prefix) > self.n_levels:
            return None
        node = 0
        for parents, children, code in zip(self.depths, self.depths[1:], prefix, strict=False):
            first, end = parents.first_child[node : node + 2].tolist()
            below = children.code[first:end].tolist()
            if code not in below:
                return None
            node = first + below.index(code)
        return node

    def items_beside(self, item: int, depth: int) -> Tensor:
        """Item indices int32 of all items with the first `depth` codes of an item, it included."""
        leaf_start = self.depths[depth].leaf_start
        node = torch.searchsorted(leaf_start, self.leaf_of_item[item], right=True) - 1
        return self.item_of_leaf[leaf_start[node] : leaf_start[node + 1]]

    def allowed_below(self, allowed_N: Tensor | None) -> tuple[Tensor, ...]:
        """How many allowed items are below each node, integers [n_d] for each depth d.

        `allowed_N` bool, by item index; None allows every item. One prefix sum over the leaves.
        """
        if allowed_N is None:
            return tuple(depth.n_items for depth in self.depths)
        sums = functional.pad(allowed_N[self.item_of_leaf].long().cumsum(0), (1, 0))
        return tuple(sums[depth.leaf_start].diff() for depth in self.depths)

    def excluded_leaves(self, items_BX: Tensor, allowed_N: Tensor | None = None) -> Tensor:
        """The leaves of `items_BX` (item indices, PADDING ignored) that are allowed, each once, ascending.

        Returns int32 [B, X] padded with `n_items`, which lies beyond every leaf.
        """
        kept_BX = items_BX >= 0
        if allowed_N is not None:
            kept_BX = kept_BX & allowed_N[items_BX.clamp(min=0)]
        leaves_BX = torch.where(kept_BX, self.leaf_of_item[items_BX.clamp(min=0)], self.n_items)
        leaves_BX = leaves_BX.sort(dim=1).values
        repeated_BX = torch.zeros_like(leaves_BX, dtype=torch.bool)
        repeated_BX[:, 1:] = leaves_BX[:, 1:] == leaves_BX[:, :-1]
        return leaves_BX.masked_fill(repeated_BX, self.n_items).sort(dim=1).values

    def emptied(self, depth: int, excluded_BX: Tensor, allowed: Tensor) -> Tensor:
        """The nodes of a depth whose allowed items are all excluded, int64 [B, X], each once or more.

        `excluded_BX` is what `excluded_leaves` returns, `allowed` the depth's counts of `allowed_below`.
        Padded with the number of nodes.
        """
        n_nodes = len(allowed)
        leaf_start = self.depths[depth].leaf_start
        nodes_BX = torch.searchsorted(leaf_start, excluded_BX, right=True) - 1
        # The padding lies in the open range after the last node; nodes ascend as their leaves do.
        n_excluded_BX = torch.searchsorted(nodes_BX, nodes_BX, right=True)
        n_excluded_BX -= torch.searchsorted(nodes_BX, nodes_BX)
        emptied_BX = n_excluded_BX == allowed[nodes_BX.clamp(max=n_nodes - 1)]
        return torch.where(emptied_BX, nodes_BX, n_nodes)
