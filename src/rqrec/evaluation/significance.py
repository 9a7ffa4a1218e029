"""Bootstrap intervals of a mean over users, and a permutation test for two recommenders.

A metric is a function of the target's rank, and ranks take few distinct values. Resampling users is therefore
equivalent to drawing the number of users with each rank from a multinomial distribution, and flipping the signs of
the users' differences at random to drawing the number of flipped differences of each size from a binomial
distribution. The results have the same distribution, at a cost independent of the number of users.

Shapes: C examples, R distinct ranks (or pairs of ranks), S samples, F flips, M metrics.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rqrec.evaluation.metrics import per_example

SAMPLES = 2000  # of the bootstrap
FLIPS = 10_000  # of the permutation test: with 2,000, a p-value of 0.001 has a standard error of 0.0007
LEVEL = 0.95  # confidence level of the intervals


class Interval(NamedTuple):
    """A 95 % bootstrap interval (percentile method)."""

    low: float
    high: float


class Difference(NamedTuple):
    """The difference in a metric between two recommenders on the same examples."""

    mean: float
    """Mean difference over all examples, positive if the first recommender is better."""
    interval: Interval
    """Paired bootstrap interval over users."""
    p_value: float
    """Two-sided p-value of the sign-flip permutation test."""
    better: int
    """Examples in which the first recommender is better."""
    worse: int
    """Examples in which the first recommender is worse."""
    equal: int
    """Examples in which both are equal."""


def intervals(ranks_C: NDArray[np.int64], names: Sequence[str], seed: int = 0) -> dict[str, Interval]:
    """Bootstrap interval over users of each metric's mean; the same seed gives the same intervals."""
    distinct_R, counts_R = np.unique(ranks_C, return_counts=True)
    values_RM = np.stack([per_example(name, distinct_R) for name in names], axis=1)
    return dict(zip(names, _bootstrap(values_RM, counts_R, np.random.default_rng(seed)), strict=True))


def difference(
    name: str, ranks_C: NDArray[np.int64], other_ranks_C: NDArray[np.int64], seed: int = 0
) -> Difference:
    """The difference in metric `name` between two recommenders, from ranks of the same examples in the same order.

    Raises ValueError if the numbers of ranks differ.
    """
    if len(ranks_C) != len(other_ranks_C):
        raise ValueError(
            f"Got {len(ranks_C)} and {len(other_ranks_C)} ranks: compare recommenders on the same examples."
        )
    rng = np.random.default_rng(seed)
    pairs_R2, counts_R = np.unique(np.stack([ranks_C, other_ranks_C], axis=1), axis=0, return_counts=True)
    gains_R = per_example(name, pairs_R2[:, 0]) - per_example(name, pairs_R2[:, 1])
    (interval,) = _bootstrap(gains_R[:, None], counts_R, rng)
    mean = float(gains_R @ counts_R) / len(ranks_C)
    kept_FR = rng.binomial(counts_R, 0.5, size=(FLIPS, len(counts_R)))
    flipped_F = (2 * kept_FR - counts_R) @ gains_R / len(ranks_C)
    extreme = int((np.abs(flipped_F) >= abs(mean) - 1e-12).sum())
    better, worse = int(counts_R[gains_R > 0].sum()), int(counts_R[gains_R < 0].sum())
    p_value = (1 + extreme) / (1 + FLIPS)
    return Difference(mean, interval, p_value, better, worse, len(ranks_C) - better - worse)


def _bootstrap(
    values_RM: NDArray[np.float64], counts_R: NDArray[np.int64], rng: np.random.Generator
) -> list[Interval]:
    examples = int(counts_R.sum())
    means_SM = rng.multinomial(examples, counts_R / examples, size=SAMPLES) @ values_RM / examples
    low_M, high_M = np.quantile(means_SM, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [Interval(low, high) for low, high in zip(low_M.tolist(), high_M.tolist(), strict=True)]
