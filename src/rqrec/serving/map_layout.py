"""Places for items in two dimensions, in which similar items are near each other, and clusters of places.

Shapes: N items, D width of their vectors, C principal components, M items to be placed, K nearest landmarks.
"""

import math

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rqrec.data.nearest import unit

COMPONENTS = 50  # principal components that t-SNE reads
MAX_LANDMARKS = 4000  # items that t-SNE places itself: seconds, not minutes
PERPLEXITY = 30.0
ITERATIONS = 500
NEAREST = 8  # landmarks that another item is placed between
BLOCK_ROWS = 16_384
SEED = 0


def lay_out(vectors_ND: NDArray[np.floating]) -> NDArray[np.float32]:
    """A place for each item, float32 [N, 2] from 0 to 1; the same for the same vectors on the same machine.

    t-SNE of the principal components of unit vectors (van der Maaten 2014; initialised by the first two, after Kobak
    and Berens 2019). Of more than MAX_LANDMARKS items it places that many at equal distances in the catalogue, and
    `place_between` places the others.
    """
    if len(vectors_ND) < 3:
        return np.linspace(0.25, 0.75, len(vectors_ND), dtype=np.float32)[:, None].repeat(2, axis=1)
    components_NC = principal_components(vectors_ND)
    n_landmarks = min(len(vectors_ND), MAX_LANDMARKS)
    landmarks = np.linspace(0, len(vectors_ND) - 1, n_landmarks).astype(np.int64)
    from sklearn.manifold import TSNE  # a second to import, which few commands need

    tsne = TSNE(
        init=_start(components_NC[landmarks]),
        perplexity=min(PERPLEXITY, (n_landmarks - 1) / 3),
        max_iter=ITERATIONS,
        random_state=SEED,
    )
    with threadpool_limits(1):  # requests need the other cores
        landmarks_M2 = to_unit_square(tsne.fit_transform(components_NC[landmarks]))
    if n_landmarks == len(vectors_ND):
        return landmarks_M2
    places_N2 = place_between(components_NC, components_NC[landmarks], landmarks_M2)
    places_N2[landmarks] = landmarks_M2
    return places_N2


def principal_components(vectors_ND: NDArray[np.floating]) -> NDArray[np.float32]:
    """The first principal components of the unit vectors, float32 [N, min(COMPONENTS, D)], at least 2 columns."""
    width = vectors_ND.shape[1]
    total_D, squares_DD = np.zeros(width), np.zeros((width, width))
    for start in range(0, len(vectors_ND), BLOCK_ROWS):
        block = unit(vectors_ND[start : start + BLOCK_ROWS]).astype(np.float64)
        total_D += block.sum(axis=0)
        squares_DD += block.T @ block
    mean_D = total_D / len(vectors_ND)
    _, axes_DD = np.linalg.eigh(squares_DD / len(vectors_ND) - np.outer(mean_D, mean_D))
    axes_DC = axes_DD[:, ::-1][:, :COMPONENTS]
    axes_DC *= np.sign(axes_DC[np.abs(axes_DC).argmax(axis=0), np.arange(axes_DC.shape[1])])
    components_NC = np.zeros((len(vectors_ND), max(2, axes_DC.shape[1])), dtype=np.float32)
    for start in range(0, len(vectors_ND), BLOCK_ROWS):
        block = unit(vectors_ND[start : start + BLOCK_ROWS]) - mean_D
        components_NC[start : start + BLOCK_ROWS, : axes_DC.shape[1]] = block @ axes_DC
    return components_NC


def place_between(
    vectors_MC: NDArray[np.floating], landmarks_NC: NDArray[np.floating], places_N2: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Places [M, 2] for vectors, near the places of the landmarks that are nearest to them.

    The mean of the K nearest landmarks' places, of which the nearest count most: weights exp(-(d² - a²) / (c² - a²)),
    where a is the distance of the nearest and c of the third, and a small shift, so that no two items coincide.
    """
    rng = np.random.default_rng(SEED)
    squares_N = np.square(landmarks_NC).sum(axis=1)
    k = min(NEAREST, len(landmarks_NC))
    placed_M2 = np.empty((len(vectors_MC), 2), dtype=np.float32)
    for start in range(0, len(vectors_MC), 4096):
        block = vectors_MC[start : start + 4096]
        distances_MN = np.maximum(
            squares_N - 2 * (block @ landmarks_NC.T) + np.square(block).sum(axis=1)[:, None], 0
        )
        nearest_MK = np.argpartition(distances_MN, k - 1, axis=1)[:, :k]
        near_MK = np.take_along_axis(distances_MN, nearest_MK, axis=1)
        first_M1 = near_MK.min(axis=1, keepdims=True)
        scale_M1 = np.sort(near_MK, axis=1)[:, [min(2, k - 1)]] - first_M1 + 1e-9
        weights_MK = np.exp(-(near_MK - first_M1) / scale_M1)
        weights_MK /= weights_MK.sum(axis=1, keepdims=True)
        around_MK2 = places_N2[nearest_MK]
        centre_M2 = (weights_MK[:, :, None] * around_MK2).sum(axis=1)
        spread_M1 = np.median(np.linalg.norm(around_MK2 - centre_M2[:, None], axis=2), axis=1)[:, None]
        shift_M2 = rng.normal(size=centre_M2.shape) * np.minimum(spread_M1, 0.02) * 0.5
        placed_M2[start : start + 4096] = np.clip(centre_M2 + shift_M2, 0, 1)
    return placed_M2


def to_unit_square(places_N2: NDArray[np.floating]) -> NDArray[np.float32]:
    """The places shifted and scaled, by the same factor in both directions, to lie centred between 0 and 1."""
    low, high = places_N2.min(axis=0), places_N2.max(axis=0)
    scaled_N2 = (places_N2 - (low + high) / 2) / max(float((high - low).max()), 1e-9) + 0.5
    return np.clip(scaled_N2, 0, 1).astype(np.float32)  # rounding may leave the square


def clusters_of(places_N2: NDArray[np.floating], n_clusters: int) -> NDArray[np.int64]:
    """The cluster of each place, int64 [N] from 0 to at most n_clusters - 1, by k-means."""
    n_distinct = len(np.unique(places_N2, axis=0))
    from sklearn.cluster import KMeans

    means = KMeans(min(n_clusters, n_distinct), n_init=2, random_state=SEED)
    with threadpool_limits(1):
        return means.fit_predict(places_N2).astype(np.int64)


def cluster_counts(n_items: int) -> tuple[int, int]:
    """How many clusters to name of a catalogue: at first sight, and closer up."""
    coarse = min(14, max(1, round(math.sqrt(n_items) / 4)))
    return coarse, 6 * coarse


def _start(components_NC: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where t-SNE starts: the first two components, scaled, and shifted a little, as it fails on equal places."""
    start_N2 = components_NC[:, :2] * (1e-4 / max(float(components_NC[:, 0].std()), 1e-9))
    return start_N2 + np.random.default_rng(SEED).normal(scale=1e-6, size=start_N2.shape).astype(np.float32)
