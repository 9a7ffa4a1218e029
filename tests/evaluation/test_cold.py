import numpy as np
import pytest
import torch

from rqrec.data.sequences import Histories
from rqrec.data.splits import leave_one_out
from rqrec.evaluation.cold import CatalogueSubset, choose_items, cold_and_warm, without_items
from rqrec.retrieval.ranking import Ranked
from tests.evaluation.test_measure import Rotating
from tests.evaluation.test_metrics import random_sequences


def test_held_out_items_are_a_seeded_share_of_the_items_with_interactions() -> None:
    sequences = random_sequences(0, 60, 30)
    held_out = choose_items(sequences, 40, 0.2, seed=1)
    assert held_out.sum() == round(0.2 * len(np.unique(sequences.items)))
    assert set(np.flatnonzero(held_out)) <= set(sequences.items.tolist())
    assert (held_out == choose_items(sequences, 40, 0.2, seed=1)).all()
    assert (held_out != choose_items(sequences, 40, 0.2, seed=2)).any()
    with pytest.raises(ValueError, match="holds out 0"):
        choose_items(sequences, 40, 0.001, seed=1)


def test_each_user_keeps_the_other_items_in_order() -> None:
    sequences = random_sequences(0, 60, 30)
    held_out = np.arange(30) % 3 == 0
    left = without_items(sequences, held_out)
    assert left.user_ids == sequences.user_ids
    for user in range(60):
        expected = [item for item in sequences.of_user(user).tolist() if item % 3]
        assert left.of_user(user).tolist() == expected


class Echo:
    """Recommends the history it is given, which shows the index translation in both directions."""

    def recommend(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> Ranked:
        items = torch.from_numpy(histories.items_BT)
        return Ranked(items, torch.zeros(items.shape))


def test_a_subset_translates_indices_both_ways_and_drops_items_outside_it() -> None:
    subset = CatalogueSubset(Echo(), np.array([2, -1, 0, 1]))  # item 1 is outside
    ranked = subset.recommend(Histories.of([[1, 3, 1, 0], [2]]), 4)
    assert ranked.items.tolist() == [[3, 0, -1, -1], [2, -1, -1, -1]]


def test_a_subset_keeps_the_times_of_its_items_and_the_users() -> None:
    class Recording(Echo):
        def recommend(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> Ranked:
            self.given = histories
            return super().recommend(histories, k)

    recording = Recording()
    subset = CatalogueSubset(recording, np.array([2, -1, 0, 1]))
    subset.recommend(Histories.of([[1, 3, 1, 0], [2]], [[10, 20, 30, 40], [50]], ["a", "b"]), 4)
    assert recording.given.times_BT is not None
    assert recording.given.times_BT.tolist() == [[20, 40, -1, -1], [50, -1, -1, -1]]
    assert recording.given.user_ids == ("a", "b")


def test_cold_and_warm_targets_are_measured_separately() -> None:
    sequences = random_sequences(1, 80, 30)
    split, held_out = leave_one_out(sequences), np.arange(30) % 4 == 0
    train = without_items(split.train, held_out)
    recommender = Rotating(30, 0)
    groups = cold_and_warm(recommender, split.test, train, held_out)
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for user in split.test.users:
        *history, target = sequences.of_user(user).tolist()
        hits[target % 4 == 0].append(target in recommender.list_of(history, 10, exclude_seen=True))
    for group, cold in (("cold", True), ("warm", False)):
        assert groups[group]["cases"] == len(hits[cold])
        assert groups[group]["metrics"]["recall@10"] == pytest.approx(np.mean(hits[cold]))
    with pytest.raises(ValueError, match="No example has a cold target"):
        cold_and_warm(recommender, split.test, train, np.zeros(30, dtype=bool))
