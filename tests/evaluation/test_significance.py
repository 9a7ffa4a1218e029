"""Intervals and tests against slow ones that draw single users."""

import itertools

import numpy as np
import pytest

from rqrec.evaluation.metrics import MISSED, by_case
from rqrec.evaluation.significance import difference, intervals


def random_ranks(seed: int, cases: int) -> np.ndarray:
    ranks = np.random.default_rng(seed).integers(0, 30, cases)
    return np.where(ranks < 20, ranks, MISSED)


def test_an_interval_is_that_of_drawing_users() -> None:
    ranks = random_ranks(0, 150)
    found = intervals(ranks, ("ndcg@10", "recall@5"), seed=1)
    rng = np.random.default_rng(2)
    for name, interval in found.items():
        values = by_case(name, ranks)
        means = values[rng.integers(0, len(ranks), (4000, len(ranks)))].mean(axis=1)
        assert interval == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)
        assert interval.low < values.mean() < interval.high
    assert intervals(ranks, ("ndcg@10", "recall@5"), seed=1) == found
    assert intervals(ranks, ("ndcg@10", "recall@5"), seed=3) != found


def test_a_p_value_is_that_of_all_sign_flips() -> None:
    ours = np.array([0, 1, MISSED, 3, 0, 2, 5, 0, MISSED, 1, 4, 0])
    theirs = np.array([2, 1, 4, MISSED, 1, 6, 5, 3, 8, MISSED, 9, 0])
    gains = by_case("ndcg@10", ours) - by_case("ndcg@10", theirs)
    flips = np.array(list(itertools.product([1, -1], repeat=len(gains))))
    exact = (np.abs(flips @ gains) >= abs(gains.sum()) - 1e-12).mean()
    found = difference("ndcg@10", ours, theirs)
    assert found.mean == pytest.approx(gains.mean())
    assert found.p_value == pytest.approx(exact, abs=0.03)
    assert (found.better, found.worse, found.equal) == (
        (gains > 0).sum(),
        (gains < 0).sum(),
        (gains == 0).sum(),
    )


def test_the_interval_of_a_difference_is_paired() -> None:
    ours = random_ranks(0, 300)
    theirs = np.where(ours < 19, ours + 1, ours)  # always one place worse: the pairs hardly vary
    found = difference("mrr@20", ours, theirs)
    gains = by_case("mrr@20", ours) - by_case("mrr@20", theirs)
    means = gains[np.random.default_rng(1).integers(0, 300, (4000, 300))].mean(axis=1)
    assert found.interval == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.005)
    assert found.interval.low > 0
    assert found.p_value < 0.001


def test_equal_runs_do_not_differ_and_other_cases_are_refused() -> None:
    ranks = random_ranks(0, 50)
    same = difference("ndcg@10", ranks, ranks)
    assert (same.mean, same.p_value, same.equal) == (0, 1, 50)
    with pytest.raises(ValueError, match="50 and 49"):
        difference("ndcg@10", ranks, ranks[1:])


def test_noise_is_seldom_called_a_difference() -> None:
    values = [
        difference("ndcg@10", random_ranks(2 * seed, 200), random_ranks(2 * seed + 1, 200)).p_value
        for seed in range(100)
    ]
    assert 0 <= np.mean(np.array(values) < 0.05) <= 0.12
    assert np.mean(np.array(values) < 0.5) == pytest.approx(0.5, abs=0.15)
