"""k-means: k-means++ seeding on a sample, then Lloyd iterations, without storing all N x V distances.

Shapes: N points, B of them at a time, V centroids, D width, C candidates.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Entries of a distance block [chunk, V]: 16 MB of float32, small enough to stay near the cache.
BLOCK_ENTRIES = 1 << 22
SEED_DRAWS = 4  # candidates drawn per k-means++ seed
MAX_UPDATES = 50
TOLERANCE = 2e-5  # relative fall of the inertia below which the updates end


class KMeansResult(NamedTuple):
    """Result of `kmeans`."""

    centroids_VD: Tensor
    """float32 [V, D]."""
    codes_N: Tensor
    """Index of the nearest centroid of each point, int64 [N]."""
    inertia: float
    """Squared distance to the nearest centroid, summed over the D dimensions, averaged over the N points."""
    iterations: int
    """Number of Lloyd updates."""


def squared_distances(x_ND: Tensor, centroids_VD: Tensor) -> Tensor:
    """|x - c|^2 of each pair, [N, V], clamped at 0; as |x|^2 - 2 x.c + |c|^2, which avoids an N x V x D tensor."""
    norms_V = centroids_VD.square().sum(1)
    products_NV = torch.addmm(norms_V, x_ND, centroids_VD.T, alpha=-2)
    return (products_NV + x_ND.square().sum(1, keepdim=True)).clamp_min(0)


def nearest(x_ND: Tensor, centroids_VD: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centroid of each point, int64 [N], and its squared distance, [N]; ties go to the lowest index."""
    rows = max(1, BLOCK_ENTRIES // len(centroids_VD))
    norms_V = centroids_VD.square().sum(1)
    codes, distances = [], []
    for x_BD in x_ND.split(rows):
        # |x|^2 is the same for all centroids, so it is added only after taking the minimum.
        lowest_B, codes_B = torch.addmm(norms_V, x_BD, centroids_VD.T, alpha=-2).min(dim=1)
        codes.append(codes_B)
        distances.append((lowest_B + x_BD.square().sum(1)).clamp_min(0))
    return torch.cat(codes), torch.cat(distances)


def kmeans(
    x_ND: Tensor,
    n_clusters: int,
    *,
    generator: torch.Generator,
    sample_size: int = 65_536,
) -> KMeansResult:
    """Cluster `x_ND` into `n_clusters`.

    Centroids are fitted to a random sample of at most `sample_size` points; every point is then assigned a
    code. Stops after `MAX_UPDATES`, or when the inertia falls by a relative difference of less than
    `TOLERANCE`. A centroid without points moves to the point farthest from its own centroid. With fewer
    distinct points than clusters, every point becomes a centroid and the spare centroids are duplicates.

    `generator` must be a CPU generator, so that a seed gives the same draws on every device.
    Raises ValueError if `x_ND` is empty or has values that are not finite, or if `n_clusters` is below 1.
    """
    if x_ND.ndim != 2 or not len(x_ND):
        raise ValueError(f"k-means needs points [N, D] with N of at least 1, not shape {tuple(x_ND.shape)}.")
    if n_clusters < 1:
        raise ValueError(f"n_clusters is {n_clusters}; it must be at least 1.")
    x_ND = x_ND.detach().float()
    if not torch.isfinite(x_ND.sum()):
        row = int((~torch.isfinite(x_ND).all(1)).nonzero()[0])
        raise ValueError(f"Row {row} of the points has NaN or infinite values: remove or correct it.")

    sample = x_ND
    if len(x_ND) > sample_size:
        rows = torch.randperm(len(x_ND), generator=generator)[:sample_size].sort().values
        sample = x_ND[rows.to(x_ND.device)]
    # The expanded distance loses precision far from the origin, so centre the points.
    mean_D = sample.mean(0)
    sample = sample - mean_D

    centroids_VD = _seeds(sample, n_clusters, generator)
    codes_N, distances_N = nearest(sample, centroids_VD)
    inertia, done = float(distances_N.mean()), 0
    while done < MAX_UPDATES:
        centroids_VD = _means(sample, codes_N, distances_N, centroids_VD)
        codes_N, distances_N = nearest(sample, centroids_VD)
        done += 1
        before, inertia = inertia, float(distances_N.mean())
        if before - inertia <= TOLERANCE * before:
            break

    if sample.shape != x_ND.shape:
        codes_N, distances_N = nearest(x_ND - mean_D, centroids_VD)
    return KMeansResult(centroids_VD + mean_D, codes_N, float(distances_N.mean()), done)


def _seeds(x_ND: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii, 2007): seeds are drawn in proportion to squared distance.

    Of `SEED_DRAWS` candidates, the one that lowers the inertia most becomes the seed.
    """
    draws = torch.rand(n_clusters, SEED_DRAWS, generator=generator, dtype=torch.float64)
    norms_N = x_ND.square().sum(1)
    chosen = [int(draws[0, 0] * len(x_ND))]
    closest_N = _distances_to(x_ND, norms_N, chosen)[:, 0]
    for draw_C in draws[1:].to(x_ND.device):
        cumulative_N = closest_N.cumsum(0, dtype=torch.float64)
        if cumulative_N[-1] == 0:  # every distinct point is already a seed
            break
        candidates = torch.searchsorted(cumulative_N, draw_C * cumulative_N[-1], right=True)
        distances_NC = _distances_to(x_ND, norms_N, candidates).minimum(closest_N[:, None])
        best = int(distances_NC.sum(0).argmin())
        closest_N = distances_NC[:, best]
        chosen.append(int(candidates[best]))
    spare = n_clusters - len(chosen)
    repeats = [chosen[i % len(chosen)] for i in range(spare)]
    return x_ND[torch.tensor(chosen + repeats, device=x_ND.device)]


def _distances_to(x_ND: Tensor, norms_N: Tensor, rows: Tensor | list[int]) -> Tensor:
    """Squared distance of each point to the points `rows`, [N, C]; exactly 0 between duplicates."""
    scales_NC = norms_N[:, None] + norms_N[rows]
    distances_NC = scales_NC - 2 * (x_ND @ x_ND[rows].T)
    # Distances below the rounding error of the expansion are those of duplicates.
    return torch.where(distances_NC > 1e-6 * scales_NC, distances_NC, 0)


def _means(x_ND: Tensor, codes_N: Tensor, distances_N: Tensor, centroids_VD: Tensor) -> Tensor:
    """Mean of each centroid's points; centroids without points move to the farthest points."""
    counts_V = torch.bincount(codes_N, minlength=len(centroids_VD))
    means_VD = torch.zeros_like(centroids_VD).index_add_(0, codes_N, x_ND) / counts_V.clamp_min(1)[:, None]
    empty = (counts_V == 0).nonzero().squeeze(1)
    if len(empty):
        distances, rows = distances_N.topk(min(len(empty), len(x_ND)))
        rows = rows[distances > 0]
        means_VD[empty] = centroids_VD[empty]
        means_VD[empty[: len(rows)]] = x_ND[rows]
    return means_VD
