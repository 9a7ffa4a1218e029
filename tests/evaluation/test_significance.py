"""Bootstrap intervals and permutation tests against slow versions that resample single users."""

import itertools

import numpy as np
import pytest

from rqrec.evaluation.metrics import MISSED, per_example
from rqrec.evaluation.significance import difference, intervals


def random_ranks(seed: int, cases: int) -> np.ndarray:
    ranks = np.random.default_rng(seed).integers(0, 30, cases)
    return np.where(ranks < 20, ranks, MISSED)


def test_intervals_match_resampling_single_users() -> None:
    ranks = random_ranks(0, 150)
    computed = intervals(ranks, ("ndcg@10", "recall@5"), seed=1)
    rng = np.random.default_rng(2)
    for name, interval in computed.items():
        values = per_example(name, ranks)
        means = values[rng.integers(0, len(ranks), (4000, len(ranks)))].mean(axis=1)
        assert interval == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)
        assert interval.low < values.mean() < interval.high
    assert intervals(ranks, ("ndcg@10", "recall@5"), seed=1) == computed
    assert intervals(ranks, ("ndcg@10", "recall@5"), seed=3) != computed


def test_the_p_value_matches_enumerating_all_sign_flips() -> None:
    ours = np.array([0, 1, MISSED, 3, 0, 2, 5, 0, MISSED, 1, 4, 0])
    theirs = np.array([2, 1, 4, MISSED, 1, 6, 5, 3, 8, MISSED, 9, 0])
    gains = per_example("ndcg@10", ours) - per_example("ndcg@10", theirs)
    flips = np.array(list(itertools.product([1, -1], repeat=len(gains))))
    exact = (np.abs(flips @ gains) >= abs(gains.sum()) - 1e-12).mean()
    result = difference("ndcg@10", ours, theirs)
    assert result.mean == pytest.approx(gains.mean())
    assert result.p_value == pytest.approx(exact, abs=0.03)
    assert (result.better, result.worse, result.equal) == (
        (gains > 0).sum(),
        (gains < 0).sum(),
        (gains == 0).sum(),
    )


def test_of_several_runs_each_example_s_mean_is_compared() -> None:
    runs = np.stack([random_ranks(seed, 12) for seed in (0, 1, 2)])
    theirs = random_ranks(3, 12)
    gains = per_example("ndcg@10", runs).mean(0) - per_example("ndcg@10", theirs)
    flips = np.array(list(itertools.product([1, -1], repeat=len(gains))))
    exact = (np.abs(flips @ gains) >= abs(gains.sum()) - 1e-12).mean()
    result = difference("ndcg@10", runs, theirs)
    assert result.mean == pytest.approx(gains.mean())
    assert result.p_value == pytest.approx(exact, abs=0.03)
    assert (result.better, result.worse) == ((gains > 0).sum(), (gains < 0).sum())
    assert difference("ndcg@10", np.stack([theirs, theirs]), theirs).p_value == 1


def test_the_interval_of_a_difference_is_paired() -> None:
    ours = random_ranks(0, 300)
    theirs = np.where(ours < 19, ours + 1, ours)  # always one rank worse: the differences hardly vary
    result = difference("mrr@20", ours, theirs)
    gains = per_example("mrr@20", ours) - per_example("mrr@20", theirs)
    means = gains[np.random.default_rng(1).integers(0, 300, (4000, 300))].mean(axis=1)
    assert result.interval == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.005)
    assert result.interval.low > 0
    assert result.p_value < 0.001


def test_equal_ranks_have_no_difference_and_unequal_lengths_are_refused() -> None:
    ranks = random_ranks(0, 50)
    same = difference("ndcg@10", ranks, ranks)
    assert (same.mean, same.p_value, same.equal) == (0, 1, 50)
    with pytest.raises(ValueError, match="50 and 49"):
        difference("ndcg@10", ranks, ranks[1:])


def test_p_values_of_pure_noise_are_uniform() -> None:
    values = [
        difference("ndcg@10", random_ranks(2 * seed, 200), random_ranks(2 * seed + 1, 200)).p_value
        for seed in range(100)
    ]
    assert 0 <= np.mean(np.array(values) < 0.05) <= 0.12
    assert np.mean(np.array(values) < 0.5) == pytest.approx(0.5, abs=0.15)
