"""How sure a mean over users is, and whether two recommenders differ: bootstrap and permutation.

A metric is a function of the target's rank, and a rank takes few values. Drawing users again and again is
drawing how many of them have each rank, from a multinomial distribution; flipping the signs of users'
differences at random is drawing how many of each size flip, from a binomial one. These are the same
distributions as those over single users, and cost no more for a million of them.

Shapes: C cases, R distinct ranks (or pairs of ranks), S samples, M metrics.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rqrec.evaluation.metrics import by_case

SAMPLES = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """The middle 95 % of the bootstrap distribution (percentile method)."""

    low: float
    high: float


class Difference(NamedTuple):
    """How much better one recommender is than another on the same cases.

    mean: of the metric's differences over all cases, above 0 where the first is better
    interval: paired bootstrap over users
    p_value: two-sided, of the sign-flip permutation test: how often chance alone gives as large a mean
    better, worse, equal: cases of each kind
    """

    mean: float
    interval: Interval
    p_value: float
    better: int
    worse: int
    equal: int


def intervals(ranks_C: NDArray[np.int64], names: Sequence[str], seed: int = 0) -> dict[str, Interval]:
    """A bootstrap interval over users of each metric's mean; equal seeds give equal intervals."""
    distinct_R, counts_R = np.unique(ranks_C, return_counts=True)
    values_RM = np.stack([by_case(name, distinct_R) for name in names], axis=1)
    return dict(zip(names, _bootstrap(values_RM, counts_R, np.random.default_rng(seed)), strict=True))


def difference(
    name: str, ranks_C: NDArray[np.int64], other_ranks_C: NDArray[np.int64], seed: int = 0
) -> Difference:
    """A metric's difference between two recommenders; the ranks are of the same cases in the same order."""
    if len(ranks_C) != len(other_ranks_C):
        raise ValueError(f"{len(ranks_C)} and {len(other_ranks_C)} ranks can't be of the same cases.")
    rng = np.random.default_rng(seed)
    pairs_R2, counts_R = np.unique(np.stack([ranks_C, other_ranks_C], axis=1), axis=0, return_counts=True)
    gains_R = by_case(name, pairs_R2[:, 0]) - by_case(name, pairs_R2[:, 1])
    (interval,) = _bootstrap(gains_R[:, None], counts_R, rng)
    mean = float(gains_R @ counts_R) / len(ranks_C)
    kept_SR = rng.binomial(counts_R, 0.5, size=(SAMPLES, len(counts_R)))
    flipped_S = (2 * kept_SR - counts_R) @ gains_R / len(ranks_C)
    extreme = int((np.abs(flipped_S) >= abs(mean) - 1e-12).sum())
    better, worse = int(counts_R[gains_R > 0].sum()), int(counts_R[gains_R < 0].sum())
    p_value = (1 + extreme) / (1 + SAMPLES)
    return Difference(mean, interval, p_value, better, worse, len(ranks_C) - better - worse)


def _bootstrap(
    values_RM: NDArray[np.float64], counts_R: NDArray[np.int64], rng: np.random.Generator
) -> list[Interval]:
    cases = int(counts_R.sum())
    means_SM = rng.multinomial(cases, counts_R / cases, size=SAMPLES) @ values_RM / cases
    low_M, high_M = np.quantile(means_SM, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [Interval(low, high) for low, high in zip(low_M.tolist(), high_M.tolist(), strict=True)]
