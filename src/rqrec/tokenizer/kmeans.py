"""k-means: k-means++ seeds on a sample, then Lloyd's iterations, in memory that does not grow with N x V.

Shapes: N points, V centroids, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Entries of a distance block [chunk, V]: 16 MB of float32, small enough to stay near the cache.
BLOCK_ENTRIES = 1 << 22


class KMeansResult(NamedTuple):
    """Centroids [V, D] float32, the nearest centroid of each point [N] int64, and the mean squared distance.

    `inertia` is averaged over the N points, summed over the D dimensions. `iterations` counts Lloyd's
    updates.
    """

    centroids_VD: Tensor
    codes_N: Tensor
    inertia: float
    iterations: int


def squared_distances(x_ND: Tensor, centroids_VD: Tensor) -> Tensor:
    """|x - c|^2 for each pair, [N, V], by |x|^2 - 2 x.c + |c|^2: no N x V x D tensor, never negative."""
    norms_V = centroids_VD.square().sum(1)
    products_NV = torch.addmm(norms_V, x_ND, centroids_VD.T, alpha=-2)
    return (products_NV + x_ND.square().sum(1, keepdim=True)).clamp_min(0)


def nearest(x_ND: Tensor, centroids_VD: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centroid of each point, int64 [N], and its squared distance [N]; ties go to the first."""
    rows = max(1, BLOCK_ENTRIES // len(centroids_VD))
    norms_V = centroids_VD.square().sum(1)
    codes, distances = [], []
    for x_BD in x_ND.split(rows):
        # |x|^2 is the same for all centroids, so it is added after the minimum is found.
        lowest_B, codes_B = torch.addmm(norms_V, x_BD, centroids_VD.T, alpha=-2).min(dim=1)
        codes.append(codes_B)
        distances.append((lowest_B + x_BD.square().sum(1)).clamp_min(0))
    return torch.cat(codes), torch.cat(distances)


def kmeans(
    x_ND: Tensor,
    n_clusters: int,
    *,
    generator: torch.Generator,
    iterations: int = 50,
    sample_size: int = 65_536,
    tolerance: float = 1e-4,
) -> KMeansResult:
    """Cluster `x_ND` into `n_clusters`.

    Seeds and centroids come from a random sample of `sample_size` points at most; the codes are given to
    all points. Stops after `iterations` updates, or once the inertia falls by less than `tolerance` of
    itself. A centroid without points moves to the point farthest from its own centroid. With fewer distinct
    points than clusters every point gets a centroid of its own and the spare centroids repeat points.

    `generator` is a CPU generator: the same seed gives the same result, wherever `x_ND` lies.
    Raises ValueError on an empty set, on values that are not finite, and on `n_clusters` below 1.
    """
    if x_ND.ndim != 2 or not len(x_ND):
        raise ValueError(f"k-means needs points [N, D] with N of at least 1, not shape {tuple(x_ND.shape)}.")
    if n_clusters < 1:
        raise ValueError(f"n_clusters is {n_clusters}; it must be at least 1.")
    x_ND = x_ND.detach().float()
    if not torch.isfinite(x_ND.sum()):
        row = int((~torch.isfinite(x_ND).all(1)).nonzero()[0])
        raise ValueError(f"Row {row} of the points is not finite: remove or repair it.")

    sample = x_ND
    if len(x_ND) > sample_size:
        rows = torch.randperm(len(x_ND), generator=generator)[:sample_size].sort().values
        sample = x_ND[rows.to(x_ND.device)]
    # Distances by expansion lose digits far from the origin, so work around the mean.
    mean_D = sample.mean(0)
    sample = sample - mean_D

    centroids_VD = _seeds(sample, n_clusters, generator)
    codes_N, distances_N = nearest(sample, centroids_VD)
    inertia, done = float(distances_N.mean()), 0
    while done < iterations:
        centroids_VD = _means(sample, codes_N, distances_N, centroids_VD)
        codes_N, distances_N = nearest(sample, centroids_VD)
        done += 1
        before, inertia = inertia, float(distances_N.mean())
        if before - inertia <= tolerance * before:
            break

    if sample.shape != x_ND.shape:
        codes_N, distances_N = nearest(x_ND - mean_D, centroids_VD)
    return KMeansResult(centroids_VD + mean_D, codes_N, float(distances_N.mean()), done)


def _seeds(x_ND: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++ (Arthur and Vassilvitskii 2007): each seed is drawn with probability ~ squared distance."""
    draws = torch.rand(n_clusters, generator=generator, dtype=torch.float64)
    chosen = [int(draws[0] * len(x_ND))]
    norms_N = x_ND.square().sum(1)
    closest_N = torch.full_like(norms_N, torch.inf)
    for draw in draws[1:]:
        seed_D = x_ND[chosen[-1]]
        scale_N = norms_N + seed_D.square().sum()
        distance_N = scale_N - 2 * (x_ND @ seed_D)
        # Differences below the rounding error of the expansion are copies of a seed, not new points.
        distance_N = torch.where(distance_N > 1e-6 * scale_N, distance_N, 0)
        closest_N = torch.minimum(closest_N, distance_N)
        cumulative_N = closest_N.cumsum(0, dtype=torch.float64)
        total = float(cumulative_N[-1])
        if total == 0:  # every distinct point is a seed already
            break
        chosen.append(int(torch.searchsorted(cumulative_N, float(draw) * total, right=True)))
    spare = n_clusters - len(chosen)
    repeats = [chosen[i % len(chosen)] for i in range(spare)]
    return x_ND[torch.tensor(chosen + repeats, device=x_ND.device)]


def _means(x_ND: Tensor, codes_N: Tensor, distances_N: Tensor, centroids_VD: Tensor) -> Tensor:
    """The mean of each centroid's points; centroids without points take the farthest points instead."""
    counts_V = torch.bincount(codes_N, minlength=len(centroids_VD))
    means_VD = torch.zeros_like(centroids_VD).index_add_(0, codes_N, x_ND) / counts_V.clamp_min(1)[:, None]
    empty = (counts_V == 0).nonzero().squeeze(1)
    if len(empty):
        distances, rows = distances_N.topk(min(len(empty), len(x_ND)))
        rows = rows[distances > 0]
        means_VD[empty] = centroids_VD[empty]
        means_VD[empty[: len(rows)]] = x_ND[rows]
    return means_VD
