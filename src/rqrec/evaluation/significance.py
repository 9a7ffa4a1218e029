"""Bootstrap intervals of a mean over users, and a permutation test for two recommenders.

A metric is a function of the target's rank, and ranks take few distinct values. Resampling users is therefore
equivalent to drawing the number of users with each value from a multinomial distribution, and flipping the signs of
the users' differences at random to drawing the number of flipped differences of each size from a binomial
distribution. The results have the same distribution, at a cost that hardly depends on the number of users.

Shapes: C examples, R distinct ranks or differences, S samples, F flips, M metrics, T runs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rqrec.evaluation.metrics import per_example

SAMPLES = 2000  # of the bootstrap
FLIPS = 10_000  # of the permutation test: with 2,000, a p-value of 0.001 has a standard error of 0.0007
FLIPS_AT_ONCE = 1000  # to save memory where differences take many values, as those of several runs do
DECIMALS = 12  # of a difference: those that only rounding tells apart are one
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

    `ranks_C` may be those of several runs, [T, C]: of each example, the mean over the runs is compared. Raises
    ValueError if the numbers of ranks differ.
    """
    if ranks_C.shape[-1] != len(other_ranks_C):
        raise ValueError(
            f"Got {ranks_C.shape[-1]} and {len(other_ranks_C)} ranks: compare recommenders on the same examples."
        )
    rng = np.random.default_rng(seed)
    runs_TC = [per_example(name, one_C) for one_C in np.atleast_2d(ranks_C)]
    gains_C = np.mean(runs_TC, axis=0) - per_example(name, other_ranks_C)
    gains_R, counts_R = np.unique(gains_C.round(DECIMALS), return_counts=True)
    (interval,) = _bootstrap(gains_R[:, None], counts_R, rng)
    total = float(gains_R @ counts_R)
    extreme = 0
    for _ in range(FLIPS // FLIPS_AT_ONCE):
        kept_FR = rng.binomial(counts_R, 0.5, size=(FLIPS_AT_ONCE, len(counts_R)))
        extreme += int((np.abs((2 * kept_FR - counts_R) @ gains_R) >= abs(total) - 1e-9).sum())
    better, worse = int(counts_R[gains_R > 0].sum()), int(counts_R[gains_R < 0].sum())
    p_value = (1 + extreme) / (1 + FLIPS)
    return Difference(total / len(gains_C), interval, p_value, better, worse, len(gains_C) - better - worse)


def _bootstrap(
    values_RM: NDArray[np.float64], counts_R: NDArray[np.int64], rng: np.random.Generator
) -> list[Interval]:
    examples = int(counts_R.sum())
    means_SM = rng.multinomial(examples, counts_R / examples, size=SAMPLES) @ values_RM / examples
    low_M, high_M = np.quantile(means_SM, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [Interval(low, high) for low, high in zip(low_M.tolist(), high_M.tolist(), strict=True)]
