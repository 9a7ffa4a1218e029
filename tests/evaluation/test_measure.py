"""The one-pass measurement against a straightforward evaluator that shares no code with it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.data.sequences import Histories
from rqrec.data.splits import leave_one_out
from rqrec.evaluation.exposure import gini
from rqrec.evaluation.measure import EvalResult, measure
from rqrec.retrieval.ranking import Ranked
from tests.evaluation.test_metrics import random_sequences


class Rotating:
    """Ranks differ from history to history: items in a fixed random order, turned by the history's sum."""

    def __init__(self, n_items: int, seed: int) -> None:
        self.order = np.random.default_rng(seed).permutation(n_items)

    def list_of(self, history: list[int], k: int, exclude_seen: bool) -> list[int]:
        turned = np.roll(self.order, sum(history))
        return [int(item) for item in turned if not (exclude_seen and item in history)][:k]

    def recommend(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> Ranked:
        rows = []
        for row in histories.items_BT.tolist():
            items = self.list_of([item for item in row if item >= 0], k, exclude_seen)
            rows.append(items + [-1] * (k - len(items)))
        return Ranked(torch.tensor(rows), torch.zeros(len(rows), k))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 25), st.integers(2, 40), st.booleans(), st.integers(1, 7))
def test_every_figure_equals_brute_force(
    seed: int, n_users: int, n_items: int, exclude_seen: bool, batch_size: int
) -> None:
    sequences = random_sequences(seed, n_users, n_items)
    split = leave_one_out(sequences)
    keys = np.random.default_rng(seed).integers(0, max(2, n_items // 2), n_items)
    recommender = Rotating(n_items, seed)
    found = measure(
        recommender,
        split.test,
        split.train,
        n_items,
        keys_N=keys,
        exclude_seen=exclude_seen,
        batch_size=batch_size,
    ).facts()

    users = [sequences.of_user(user).tolist() for user in range(n_users)]
    train = [item for taken in users for item in (taken[:-2] if len(taken) >= 3 else taken)]
    lists, id_lists, targets, lengths = [], [], [], []
    for taken in users:
        if len(taken) >= 3:
            items = recommender.list_of(taken[:-1], 20, exclude_seen)
            lists.append(items)
            id_lists.append(list(dict.fromkeys(int(keys[item]) for item in items)))
            targets.append(taken[-1])
            lengths.append(len(taken) - 1)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def recall(k: int, ranked: list[list[int]], wanted: list[int]) -> list[float]:
        return [float(one in items[:k]) for items, one in zip(ranked, wanted, strict=True)]

    def gain(k: int, ranked: list[list[int]], wanted: list[int]) -> list[float]:
        return [
            1 / math.log2(items.index(one) + 2) if one in items[:k] else 0.0
            for items, one in zip(ranked, wanted, strict=True)
        ]

    assert found["cases"] == len(targets)
    for k in (1, 5, 10, 20):
        assert found["metrics"][f"recall@{k}"] == pytest.approx(mean(recall(k, lists, targets)))
        assert found["metrics"][f"hit_rate@{k}"] == found["metrics"][f"recall@{k}"]
        assert found["metrics"][f"ndcg@{k}"] == pytest.approx(mean(gain(k, lists, targets)))
        reciprocal = [
            1 / (items.index(one) + 1) if one in items[:k] else 0.0
            for items, one in zip(lists, targets, strict=True)
        ]
        assert found["metrics"][f"mrr@{k}"] == pytest.approx(mean(reciprocal))
    id_targets = [int(keys[target]) for target in targets]
    for k in (5, 10):
        by_id = found["id_level"]["metrics"]
        assert by_id[f"recall@{k}"] == pytest.approx(mean(recall(k, id_lists, id_targets)))
        assert by_id[f"ndcg@{k}"] == pytest.approx(mean(gain(k, id_lists, id_targets)))

    shown = [item for items in lists for item in items[:10]]
    counts = {item: train.count(item) for item in range(n_items)}
    exposure = found["exposure"]
    assert exposure["coverage"] == pytest.approx(len(set(shown)) / n_items)
    assert exposure["popularity"] == pytest.approx(mean([counts[item] for item in shown] or [0]))
    bits = [-math.log2((counts[item] + 1) / (len(train) + n_items)) for item in shown]
    assert exposure["novelty"] == pytest.approx(mean(bits or [0]))

    hits = recall(10, lists, targets)
    by_target = {row["group"].split(":")[0]: row for row in found["groups"]["target"]}
    for name, belongs in {
        "cold": lambda count: count == 0,
        "few": lambda count: 1 <= count <= 5,
        "warm": lambda count: count >= 6,
    }.items():
        members = [hit for hit, target in zip(hits, targets, strict=True) if belongs(counts[target])]
        assert by_target[name]["cases"] == len(members)
        if members:
            assert by_target[name]["metrics"]["recall@10"] == pytest.approx(mean(members))
        else:
            assert by_target[name]["metrics"] is None
    for row, (low, high) in zip(
        found["groups"]["history"], ((1, 4), (5, 9), (10, 19), (20, 49), (50, 999)), strict=True
    ):
        members = [hit for hit, length in zip(hits, lengths, strict=True) if low <= length <= high]
        assert row["cases"] == len(members)
    assert sum(row["cases"] for row in found["groups"]["popularity"]) == len(targets)


def test_items_are_popular_by_their_place_and_not_by_their_count() -> None:
    from rqrec.evaluation.groups import by_popularity

    counts = np.array([0, 5, 9, 1, 1, 1, 1, 1, 1, 1])
    groups = by_popularity(np.arange(10), counts)
    head, middle, tail = groups.values()
    assert np.flatnonzero(head).tolist() == [2]
    assert np.flatnonzero(middle).tolist() == [1, 3, 4, 5]
    assert np.flatnonzero(tail).tolist() == [0, 6, 7, 8, 9]


def test_gini_by_hand() -> None:
    assert gini(np.array([3, 3, 3])) == 0
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)
    assert gini(np.array([1, 3])) == pytest.approx(0.25)
    assert gini(np.zeros(4, dtype=int)) == 0


def test_id_level_figures_count_a_bucket_once_and_flatter() -> None:
    from rqrec.evaluation.metrics import target_id_ranks, target_ranks

    keys = np.array([7, 7, 8, 9, 9])
    items, targets = np.array([[1, 2, 3, -1], [2, 3, 0, 1]]), np.array([0, 1])
    assert target_ranks(items, targets).tolist() == [np.iinfo(np.int64).max, 3]
    assert target_id_ranks(items, targets, keys).tolist() == [0, 2]


def test_ranks_are_saved_and_read_again(tmp_path: object) -> None:
    split = leave_one_out(random_sequences(3, 20, 30))
    measured = measure(Rotating(30, 0), split.test, split.train, 30)
    measured.write(tmp_path)  # type: ignore[arg-type]
    again = EvalResult.read(tmp_path)  # type: ignore[arg-type]
    assert again.id_ranks_C is None
    assert again.facts() == measured.facts()


def test_a_split_without_cases_is_a_sentence() -> None:
    split = leave_one_out(random_sequences(3, 20, 30))
    with pytest.raises(ValueError, match="no user of this split"):
        measure(Rotating(30, 0), split.test.strided(1, len(split.test)), split.train, 30)
