"""Metrics against hand-worked numbers and a brute-force evaluator that shares no code with them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.data.sequences import Histories, Sequences
from rqrec.data.splits import leave_one_out
from rqrec.evaluation.evaluate import evaluate
from rqrec.evaluation.metrics import MISSED, ranking_metrics, target_ranks
from rqrec.knn.popularity import Popularity
from rqrec.retrieval.ranking import ExhaustiveRecommender, Ranked


def test_metrics_equal_hand_worked_numbers() -> None:
    items = np.array([[7, 3, 9], [1, 2, 7], [4, 5, 6], [7, 0, 1]])
    ranks = target_ranks(items, np.array([7, 7, 7, 0]))
    assert ranks.tolist() == [0, 2, MISSED, 1]
    metrics = ranking_metrics(ranks)
    assert metrics["recall@1"] == 0.25
    assert metrics["recall@5"] == metrics["recall@10"] == 0.75
    assert metrics["ndcg@5"] == pytest.approx((1 + 1 / math.log2(4) + 0 + 1 / math.log2(3)) / 4)


def test_a_rank_below_the_cutoff_does_not_count() -> None:
    metrics = ranking_metrics(np.array([5, 9, 10]))
    assert metrics["recall@5"] == metrics["ndcg@5"] == 0
    assert metrics["recall@10"] == pytest.approx(2 / 3)
    assert metrics["ndcg@10"] == pytest.approx((1 / math.log2(7) + 1 / math.log2(11)) / 3)


def test_metrics_without_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="no examples"):
        ranking_metrics(np.zeros(0, dtype=np.int64))


def random_sequences(seed: int, n_users: int, n_items: int) -> Sequences:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 12, n_users)
    lengths[0] = 5
    return Sequences(
        items=rng.integers(0, n_items, lengths.sum()).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        timestamps=np.arange(lengths.sum()),
        user_ids=tuple(f"user {user}" for user in range(n_users)),
    )


class RandomScores:
    """Ranks by fixed random scores, which the brute-force evaluator uses too."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores

    def recommend(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> Ranked:
        rows = []
        for history in histories.items_BT:
            seen = set(history.tolist()) if exclude_seen else set()
            order = [item for item in np.argsort(-self.scores, kind="stable") if item not in seen]
            rows.append((order + [-1] * k)[:k])
        return Ranked(torch.tensor(rows), torch.zeros(len(rows), k))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 15), st.integers(2, 30), st.booleans(), st.integers(1, 7))
def test_the_evaluator_equals_brute_force(
    seed: int, n_users: int, n_items: int, exclude_seen: bool, batch_size: int
) -> None:
    sequences = random_sequences(seed, n_users, n_items)
    scores = np.random.default_rng(seed).random(n_items)
    for position, cases in ((-2, leave_one_out(sequences).validation), (-1, leave_one_out(sequences).test)):
        metrics = evaluate(
            RandomScores(scores), cases, exclude_seen=exclude_seen, batch_size=batch_size
        ).metrics
        recalls, gains = [], []
        for user in range(n_users):
            items = sequences.of_user(user).tolist()
            if len(items) < 3:
                continue
            target, history = items[position], items[:position]
            rank = sum(
                scores[other] > scores[target]
                for other in range(n_items)
                if not (exclude_seen and other in history)
            )
            reachable = not (exclude_seen and target in history)
            hit = reachable and rank < 10
            recalls.append(float(hit))
            gains.append(1 / math.log2(rank + 2) if hit else 0.0)
        assert metrics["recall@10"] == pytest.approx(sum(recalls) / len(recalls))
        assert metrics["ndcg@10"] == pytest.approx(sum(gains) / len(gains))


def test_another_item_with_the_same_codes_is_not_a_hit() -> None:
    ranks = target_ranks(np.array([[0, 1, 2]]), np.array([3]))
    assert ranks.tolist() == [MISSED]


def test_popularity_counts_training_items_only_and_breaks_ties_by_index() -> None:
    sequences = Sequences(
        items=np.array([2, 2, 1, 0, 0, 3, 3, 3], dtype=np.int32),
        offsets=np.array([0, 5, 8]),
        timestamps=np.arange(8),
        user_ids=("a", "b"),
    )
    train = leave_one_out(sequences).train  # user a: 2 2 1, user b: 3
    ranked = ExhaustiveRecommender(Popularity(train, 4)).recommend(Histories.of([[], [2]]), 4)
    assert ranked.items.tolist() == [[2, 1, 3, 0], [1, 3, 0, -1]]
    seen_too = ExhaustiveRecommender(Popularity(train, 4)).recommend(
        Histories.of([[2]]), 2, exclude_seen=False
    )
    assert seen_too.items.tolist() == [[2, 1]]
