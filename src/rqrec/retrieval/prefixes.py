"""From a prefix of codes to its number, for models that know the catalogue.

Shapes: N items, L levels, B batch, K beams, l codes of a prefix.
"""

import torch
from torch import Tensor


class Prefixes:
    """The prefixes of the catalogue's semantic IDs, numbered at each depth in the order of their codes.

    `of_item[d]` int64 [N]: the node of each item at depth d, 0 to L. `keys[d]` int64: each node of depth d + 1 as
    its parent's number x the size of level d + its own code, sorted.
    """

    def __init__(self, codes_NL: Tensor, level_sizes: tuple[int, ...]) -> None:
        self.level_sizes = level_sizes
        self.of_item = [torch.zeros(len(codes_NL), dtype=torch.int64, device=codes_NL.device)]
        self.keys: list[Tensor] = []
        for size, codes_N in zip(level_sizes, codes_NL.unbind(1), strict=True):
            keys, nodes_N = torch.unique(self.of_item[-1] * size + codes_N, return_inverse=True)
            self.keys.append(keys)
            self.of_item.append(nodes_N)

    def of_prefix(self, prefix_BKl: Tensor) -> Tensor:
        """The node of each prefix, int64 [B, K]; -1 where no item has it."""
        nodes_BK = torch.zeros(prefix_BKl.shape[:2], dtype=torch.int64, device=prefix_BKl.device)
        for level, codes_BK in enumerate(prefix_BKl.unbind(2)):
            wanted_BK = nodes_BK * self.level_sizes[level] + codes_BK  # below 0 under a node of -1
            keys = self.keys[level]
            nodes_BK = torch.searchsorted(keys, wanted_BK).clamp_(max=len(keys) - 1)
            nodes_BK = torch.where(keys[nodes_BK] == wanted_BK, nodes_BK, -1)
        return nodes_BK
