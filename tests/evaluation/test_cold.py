import numpy as np
import pytest
import torch

from rqrec.data.sequences import Histories
from rqrec.data.splits import leave_one_out
from rqrec.evaluation.cold import CatalogueSubset, choose_items, cold_and_warm, without_items
from rqrec.retrieval.ranking import Ranked
from tests.evaluation.test_measure import Rotating
from tests.evaluation.test_metrics import random_sequences


def test_held_out_items_are_a_seeded_share_of_those_that_were_taken() -> None:
    sequences = random_sequences(0, 60, 30)
    held = choose_items(sequences, 40, 0.2, seed=1)
    assert held.sum() == round(0.2 * len(np.unique(sequences.items)))
    assert set(np.flatnonzero(held)) <= set(sequences.items.tolist())
    assert (held == choose_items(sequences, 40, 0.2, seed=1)).all()
    assert (held != choose_items(sequences, 40, 0.2, seed=2)).any()
    with pytest.raises(ValueError, match="holds out 0"):
        choose_items(sequences, 40, 0.001, seed=1)


def test_each_user_keeps_the_other_items_in_order() -> None:
    sequences = random_sequences(0, 60, 30)
    held = np.arange(30) % 3 == 0
    left = without_items(sequences, held)
    assert left.user_ids == sequences.user_ids
    for user in range(60):
        expected = [item for item in sequences.of_user(user).tolist() if item % 3]
        assert left.of_user(user).tolist() == expected


class Echo:
    """Recommends what it is shown, so that a test sees both directions of the translation."""

    def recommend(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> Ranked:
        items = torch.from_numpy(histories.items_BT)
        return Ranked(items, torch.zeros(items.shape))


def test_within_translates_both_ways_and_passes_over_what_it_does_not_know() -> None:
    within = CatalogueSubset(Echo(), np.array([2, -1, 0, 1]))  # item 1 has no place
    found = within.recommend(Histories.of([[1, 3, 1, 0], [2]]), 4)
    assert found.items.tolist() == [[3, 0, -1, -1], [2, -1, -1, -1]]


def test_cold_and_warm_targets_are_measured_apart() -> None:
    sequences = random_sequences(1, 80, 30)
    split, held = leave_one_out(sequences), np.arange(30) % 4 == 0
    train = without_items(split.train, held)
    recommender = Rotating(30, 0)
    found = cold_and_warm(recommender, split.test, train, held)
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for user in split.test.users:
        taken = sequences.of_user(user).tolist()
        shown = recommender.list_of(taken[:-1], 10, exclude_seen=True)
        hits[taken[-1] % 4 == 0].append(taken[-1] in shown)
    for kind, cold in (("cold", True), ("warm", False)):
        assert found[kind]["cases"] == len(hits[cold])
        assert found[kind]["metrics"]["recall@10"] == pytest.approx(np.mean(hits[cold]))
    with pytest.raises(ValueError, match="No case has a cold target"):
        cold_and_warm(recommender, split.test, train, np.zeros(30, dtype=bool))
