"""Balanced k-means: a price per code limits how many items the code can have.

This is the dual of the assignment problem with capacities: an item is assigned to the code with the lowest
squared distance + price. Sinkhorn iterations (arXiv 1306.0895), with soft assignments that gradually harden,
bring the prices close to the solution in a few rounds. An auction then raises the price of codes that are
still over capacity.

Shapes: N items, V codes, D width.
"""

import torch
from torch import Tensor

from rqrec.tokenizer.kmeans import squared_distances

MOVES = 4  # of the centroids, each followed by new prices
SOFT_ROUNDS = 100
HARD_ROUNDS = 300
# Temperature of the soft assignments in the first and the last round, in units of a typical squared distance.
TEMPERATURES = (0.3, 0.01)


def balanced_kmeans(x_ND: Tensor, centroids_VD: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """Centroids [V, D] and prices [V] that keep every code within `capacity` items; see `prices`.

    Starts from `centroids_VD` and moves each centroid to the mean of its items, `MOVES` times. Needs
    memory for N x V distances. Raises ValueError if `capacity` x V is less than N.
    """
    for _ in range(MOVES):
        distances_NV = squared_distances(x_ND, centroids_VD)
        codes_N = (distances_NV + soft_prices(distances_NV, capacity, SOFT_ROUNDS // 4)).argmin(1)
        counts_V = torch.bincount(codes_N, minlength=len(centroids_VD))[:, None]
        sums_VD = torch.zeros_like(centroids_VD).index_add_(0, codes_N, x_ND)
        centroids_VD = torch.where(counts_V > 0, sums_VD / counts_V.clamp_min(1), centroids_VD)
    return centroids_VD, prices(squared_distances(x_ND, centroids_VD), capacity)


def prices(distances_NV: Tensor, capacity: int) -> Tensor:
    """Non-negative price of each code, [V].

    Prices cannot separate duplicate items, or items exactly on the border of two codes; with such items a
    code may end slightly above `capacity`. Raises ValueError if `capacity` x V is less than N.
    """
    items, size = distances_NV.shape
    if capacity * size < items:
        raise ValueError(
            f"{size} codes of at most {capacity} items cannot hold {items} items: the capacity must be at "
            f"least {-(-items // size)}."
        )
    # The hard rounds only remove small excesses quickly, so aim below the capacity where there is room.
    prices_V = soft_prices(distances_NV, max(items / size, 0.92 * capacity), SOFT_ROUNDS)
    step = 1e-3 * _unit(distances_NV)
    for _ in range(HARD_ROUNDS):
        nearest_N2 = (distances_NV + prices_V).topk(2, dim=1, largest=False)
        codes_N, margins_N = nearest_N2.indices[:, 0], nearest_N2.values.diff(dim=1)[:, 0]
        counts_V = torch.bincount(codes_N, minlength=size)
        overfull = (counts_V > capacity).nonzero().squeeze(1)
        if not len(overfull):
            break
        # Evict only half of the excess per round: neighbouring codes raise their prices in the same round.
        leaving = (counts_V[overfull] - capacity + 1) // 2
        by_margin = margins_N.argsort(stable=True)
        order_N = by_margin[codes_N[by_margin].argsort(stable=True)]
        last = (counts_V.cumsum(0) - counts_V)[overfull] + leaving - 1
        prices_V[overfull] += margins_N[order_N[last]] + step
    return prices_V


def soft_prices(distances_NV: Tensor, capacity: float, rounds: int) -> Tensor:
    """Prices [V] under which the soft assignments, annealed over `rounds`, keep each code within `capacity`."""
    prices_V = torch.zeros_like(distances_NV[0])
    unit = _unit(distances_NV)
    first, last = TEMPERATURES
    for done in range(rounds):
        temperature = unit * first * (last / first) ** (done / rounds)
        loads_V = (distances_NV + prices_V).div_(-temperature).softmax(1).sum(0)
        prices_V = (prices_V + temperature * (loads_V.clamp_min(1e-9) / capacity).log()).clamp_min(0)
    return prices_V


def _unit(distances_NV: Tensor) -> Tensor:
    """Scale of the distances: the median to the nearest code, but at least 0.1 x the median to the second."""
    median_2 = distances_NV.topk(2, dim=1, largest=False).values.median(dim=0).values
    return torch.maximum(median_2[0], 0.1 * median_2[1]).clamp_min(1e-12)
