"""The one-pass evaluation against a brute-force evaluator that shares no code with it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.data.sequences import Histories
from rqrec.data.splits import leave_one_out
from rqrec.evaluation.exposure import gini
from rqrec.evaluation.measure import EvalResult, measure
from rqrec.knn.popularity import Popularity
from rqrec.retrieval.ranking import ExhaustiveRecommender, Ranked
from tests.evaluation.test_metrics import random_sequences


class Rotating:
    """Recommends the items in a fixed random order, rotated by the sum of the history."""

    def __init__(self, n_items: int, seed: int) -> None:
        self.order = np.random.default_rng(seed).permutation(n_items)

    def list_of(self, history: list[int], k: int, exclude_seen: bool) -> list[int]:
        rotated = np.roll(self.order, sum(history))
        return [int(item) for item in rotated if not (exclude_seen and item in history)][:k]

    def recommend(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> Ranked:
        rows = []
        for row in histories.items_BT.tolist():
            items = self.list_of([item for item in row if item >= 0], k, exclude_seen)
            rows.append(items + [-1] * (k - len(items)))
        return Ranked(torch.tensor(rows), torch.zeros(len(rows), k))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 25), st.integers(2, 40), st.booleans(), st.integers(1, 7))
def test_every_metric_equals_brute_force(
    seed: int, n_users: int, n_items: int, exclude_seen: bool, batch_size: int
) -> None:
    sequences = random_sequences(seed, n_users, n_items)
    split = leave_one_out(sequences)
    keys = np.random.default_rng(seed).integers(0, max(2, n_items // 2), n_items)
    recommender = Rotating(n_items, seed)
    summary = measure(
        recommender,
        split.test,
        split.train,
        n_items,
        keys_N=keys,
        exclude_seen=exclude_seen,
        batch_size=batch_size,
    ).summary()

    users = [sequences.of_user(user).tolist() for user in range(n_users)]
    train = [item for items in users for item in (items[:-2] if len(items) >= 3 else items)]
    lists, id_lists, targets, lengths = [], [], [], []
    for items in users:
        if len(items) >= 3:
            ranked = recommender.list_of(items[:-1], 20, exclude_seen)
            lists.append(ranked)
            id_lists.append(list(dict.fromkeys(int(keys[item]) for item in ranked)))
            targets.append(items[-1])
            lengths.append(len(items) - 1)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def recall(k: int, lists: list[list[int]], targets: list[int]) -> list[float]:
        return [float(target in items[:k]) for items, target in zip(lists, targets, strict=True)]

    def ndcg(k: int, lists: list[list[int]], targets: list[int]) -> list[float]:
        return [
            1 / math.log2(items.index(target) + 2) if target in items[:k] else 0.0
            for items, target in zip(lists, targets, strict=True)
        ]

    assert summary["cases"] == len(targets)
    for k in (1, 5, 10, 20):
        assert summary["metrics"][f"recall@{k}"] == pytest.approx(mean(recall(k, lists, targets)))
        assert summary["metrics"][f"hit_rate@{k}"] == summary["metrics"][f"recall@{k}"]
        assert summary["metrics"][f"ndcg@{k}"] == pytest.approx(mean(ndcg(k, lists, targets)))
        reciprocal = [
            1 / (items.index(target) + 1) if target in items[:k] else 0.0
            for items, target in zip(lists, targets, strict=True)
        ]
        assert summary["metrics"][f"mrr@{k}"] == pytest.approx(mean(reciprocal))
    id_targets = [int(keys[target]) for target in targets]
    for k in (5, 10):
        id_level = summary["id_level"]["metrics"]
        assert id_level[f"recall@{k}"] == pytest.approx(mean(recall(k, id_lists, id_targets)))
        assert id_level[f"ndcg@{k}"] == pytest.approx(mean(ndcg(k, id_lists, id_targets)))

    shown = [item for items in lists for item in items[:10]]
    counts = {item: train.count(item) for item in range(n_items)}
    exposure = summary["exposure"]
    assert exposure["coverage"] == pytest.approx(len(set(shown)) / n_items)
    assert exposure["popularity"] == pytest.approx(mean([counts[item] for item in shown] or [0]))
    bits = [-math.log2((counts[item] + 1) / (len(train) + n_items)) for item in shown]
    assert exposure["novelty"] == pytest.approx(mean(bits or [0]))

    hits = recall(10, lists, targets)
    by_target = {row["group"].split(":")[0]: row for row in summary["groups"]["target"]}
    for name, is_member in {
        "cold": lambda count: count == 0,
        "few": lambda count: 1 <= count <= 5,
        "warm": lambda count: count >= 6,
    }.items():
        members = [hit for hit, target in zip(hits, targets, strict=True) if is_member(counts[target])]
        assert by_target[name]["cases"] == len(members)
        if members:
            assert by_target[name]["metrics"]["recall@10"] == pytest.approx(mean(members))
        else:
            assert by_target[name]["metrics"] is None
    for row, (low, high) in zip(
        summary["groups"]["history"], ((1, 4), (5, 9), (10, 19), (20, 49), (50, 999)), strict=True
    ):
        members = [hit for hit, length in zip(hits, lengths, strict=True) if low <= length <= high]
        assert row["cases"] == len(members)
    assert sum(row["cases"] for row in summary["groups"]["popularity"]) == len(targets)


def test_one_pass_measures_with_and_without_seen_items() -> None:
    sequences = random_sequences(3, 30, 25)
    split = leave_one_out(sequences)
    for recommender in (Rotating(25, 3), ExhaustiveRecommender(Popularity(split.train, 25))):
        for exclude_seen in (True, False):
            one, other = (
                measure(recommender, split.test, split.train, 25, exclude_seen=choice)
                for choice in (exclude_seen, not exclude_seen)
            )
            both = measure(recommender, split.test, split.train, 25, exclude_seen=exclude_seen, both=True)
            assert (both.ranks_C == one.ranks_C).all()
            assert both.other_ranks_C is not None
            assert (both.other_ranks_C == other.ranks_C).all()
            assert one.other_ranks_C is None


def test_items_are_scored_once_for_both() -> None:
    class Counting(Popularity):
        calls = 0

        def score_items(self, histories: Histories) -> torch.Tensor:
            self.calls += 1
            return super().score_items(histories)

    split = leave_one_out(random_sequences(3, 30, 25))
    scorer = Counting(split.train, 25)
    measure(ExhaustiveRecommender(scorer), split.test, split.train, 25, both=True)
    assert scorer.calls == 1


def test_popularity_groups_depend_on_ranks_and_not_on_counts() -> None:
    from rqrec.evaluation.groups import by_popularity

    counts = np.array([0, 5, 9, 1, 1, 1, 1, 1, 1, 1])
    groups = by_popularity(np.arange(10), counts)
    head, middle, tail = groups.values()
    assert np.flatnonzero(head).tolist() == [2]
    assert np.flatnonzero(middle).tolist() == [1, 3, 4, 5]
    assert np.flatnonzero(tail).tolist() == [0, 6, 7, 8, 9]


def test_gini_of_hand_worked_examples() -> None:
    assert gini(np.array([3, 3, 3])) == 0
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)
    assert gini(np.array([1, 3])) == pytest.approx(0.25)
    assert gini(np.zeros(4, dtype=int)) == 0


def test_id_level_ranks_count_items_with_the_same_key_once() -> None:
    from rqrec.evaluation.metrics import target_id_ranks, target_ranks

    keys = np.array([7, 7, 8, 9, 9])
    items, targets = np.array([[1, 2, 3, -1], [2, 3, 0, 1]]), np.array([0, 1])
    assert target_ranks(items, targets).tolist() == [np.iinfo(np.int64).max, 3]
    assert target_id_ranks(items, targets, keys).tolist() == [0, 2]


def test_a_written_result_reads_back_the_same(tmp_path: Path) -> None:
    split = leave_one_out(random_sequences(3, 20, 30))
    result = measure(Rotating(30, 0), split.test, split.train, 30)
    result.write(tmp_path)
    read = EvalResult.read(tmp_path)
    assert read.id_ranks_C is None
    assert read.summary() == result.summary()


def test_a_split_without_examples_is_refused() -> None:
    split = leave_one_out(random_sequences(3, 20, 30))
    with pytest.raises(ValueError, match="no user of this split"):
        measure(Rotating(30, 0), split.test.strided(1, len(split.test)), split.train, 30)
