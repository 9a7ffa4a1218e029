"""Prices that keep any code from taking more than its share of the items.

The dual of the assignment problem with capacities: an item takes the code with the least squared distance
plus price. Sinkhorn's iterations (arXiv 1306.0895) bring the prices near in few rounds, by soft assignments
that harden; then codes that are still overfull grow dearer until they no longer are (an auction).

Shapes: N items, V codes, D width.
"""

import torch
from torch import Tensor

from rqrec.tokenizer.kmeans import squared_distances

SOFT_ROUNDS = 100
HARD_ROUNDS = 300
SOFTNESS = (0.3, 0.01)  # of the assignments, first and last, in units of the usual squared distance


def balanced_kmeans(
    x_ND: Tensor, centroids_VD: Tensor, capacity: int, iterations: int = 4
) -> tuple[Tensor, Tensor]:
    """Centroids [V, D], and prices [V] that keep the items of a code within `capacity`; see `prices`.

    Starts from `centroids_VD` and moves each centroid to the mean of its items, `iterations` times. Needs
    memory for N x V distances. Raises ValueError where `capacity` x V is too small for the items.
    """
    for _ in range(iterations):
        distances_NV = squared_distances(x_ND, centroids_VD)
        codes_N = (distances_NV + soft_prices(distances_NV, capacity, SOFT_ROUNDS // 4)).argmin(1)
        counts_V = torch.bincount(codes_N, minlength=len(centroids_VD))[:, None]
        sums_VD = torch.zeros_like(centroids_VD).index_add_(0, codes_N, x_ND)
        centroids_VD = torch.where(counts_V > 0, sums_VD / counts_V.clamp_min(1), centroids_VD)
    return centroids_VD, prices(squared_distances(x_ND, centroids_VD), capacity)


def prices(distances_NV: Tensor, capacity: int) -> Tensor:
    """The price of each code, [V]: 0 or more.

    A price cannot tell apart items that are copies of each other, nor items on the very border of two codes:
    where there are such items a code may end a little above `capacity`. Raises ValueError where
    `capacity` x V is too small for the items.
    """
    items, size = distances_NV.shape
    if capacity * size < items:
        raise ValueError(
            f"{size} codes of at most {capacity} items cannot hold {items} items: allow at least "
            f"{-(-items // size)}."
        )
    # The hard rounds settle only small excesses quickly: aim below the capacity where there is room.
    prices_V = soft_prices(distances_NV, max(items / size, 0.92 * capacity), SOFT_ROUNDS)
    step = 1e-3 * _unit(distances_NV)
    for _ in range(HARD_ROUNDS):
        nearest_N2 = (distances_NV + prices_V).topk(2, dim=1, largest=False)
        codes_N, margins_N = nearest_N2.indices[:, 0], nearest_N2.values.diff(dim=1)[:, 0]
        counts_V = torch.bincount(codes_N, minlength=size)
        overfull = (counts_V > capacity).nonzero().squeeze(1)
        if not len(overfull):
            break
        # Half of what is too much leaves at a time, for its neighbours grow dearer in the same round.
        leaving = (counts_V[overfull] - capacity + 1) // 2
        by_margin = margins_N.argsort(stable=True)
        order_N = by_margin[codes_N[by_margin].argsort(stable=True)]
        last = (counts_V.cumsum(0) - counts_V)[overfull] + leaving - 1
        prices_V[overfull] += margins_N[order_N[last]] + step
    return prices_V


def soft_prices(distances_NV: Tensor, capacity: float, rounds: int) -> Tensor:
    """Prices [V] with which soft assignments, growing harder, load no code beyond `capacity`."""
    prices_V = torch.zeros_like(distances_NV[0])
    unit = _unit(distances_NV)
    first, last = SOFTNESS
    for done in range(rounds):
        softness = unit * first * (last / first) ** (done / rounds)
        loads_V = (-(distances_NV + prices_V) / softness).softmax(1).sum(0)
        prices_V = (prices_V + softness * (loads_V.clamp_min(1e-9) / capacity).log()).clamp_min(0)
    return prices_V


def _unit(distances_NV: Tensor) -> Tensor:
    """The median squared distance to the nearest code; where that is 0, a share of that to the second."""
    median_2 = distances_NV.topk(2, dim=1, largest=False).values.median(dim=0).values
    return torch.maximum(median_2[0], 0.1 * median_2[1]).clamp_min(1e-12)
