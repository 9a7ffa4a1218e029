from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rqrec.data.catalog import Catalog
from rqrec.data.dataset import Dataset
from rqrec.data.sequences import Histories, Sequences
from rqrec.data.splits import leave_one_out
from rqrec.evaluation.cold import CatalogueSubset, choose_items, cold_and_warm, warm_log, without_items
from rqrec.evaluation.measure import measure
from rqrec.experiments.cold_start import HoldOutConfig, hold_out_items
from rqrec.retrieval.ranking import Ranked
from rqrec.stages.raw_data import DataConfig, dataset_from_raw
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


def interactions_of(sequences: Sequences) -> set[tuple[str, int]]:
    """Each interaction as its user and its time, which differ between the interactions of a user."""
    users = np.repeat(np.arange(len(sequences)), sequences.lengths)
    return {
        (sequences.user_ids[user], time)
        for user, time in zip(users, sequences.timestamps.tolist(), strict=True)
    }


def targets_of(sequences: Sequences) -> set[tuple[str, int]]:
    """The test and validation targets of the complete sequences, in the same form."""
    split = leave_one_out(sequences)
    return {
        (sequences.user_ids[user], int(sequences.timestamps[end]))
        for examples in (split.test, split.validation)
        for user, end in zip(examples.users, examples.ends, strict=True)
    }


def short_sequences(lengths: list[int], n_items: int, seed: int) -> Sequences:
    """Random items, some of them several times, at different times."""
    items = np.random.default_rng(seed).integers(0, n_items, sum(lengths)).astype(np.int32)
    users = tuple(f"user {user}" for user in range(len(lengths)))
    return Sequences(items, np.cumsum([0, *lengths]), 1000 + 10 * np.arange(len(items)), users)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(2, 8), st.data())
def test_training_without_held_out_items_never_sees_a_target(
    lengths: list[int], n_items: int, data: st.DataObject
) -> None:
    assume(max(lengths) >= 3)
    sequences = short_sequences(lengths, n_items, data.draw(st.integers(0, 10**6)))
    held_out = np.array(data.draw(st.lists(st.booleans(), min_size=n_items, max_size=n_items)))
    warm = warm_log(sequences, held_out)
    trained = warm  # all of it, if no user is left with 3 items
    if warm.lengths.max() >= 3:
        split = leave_one_out(warm)
        trained = split.train
        selected_on = {
            (warm.user_ids[u], int(warm.timestamps[e]))
            for u, e in zip(split.validation.users, split.validation.ends, strict=True)
        }
        tests = leave_one_out(sequences).test
        tested = {
            (sequences.user_ids[u], int(sequences.timestamps[e]))
            for u, e in zip(tests.users, tests.ends, strict=True)
        }
        assert selected_on.isdisjoint(tested)
    assert interactions_of(trained).isdisjoint(targets_of(sequences))
    assert not held_out[warm.items].any()
    # Nothing else is left out: what the complete split trains on, but for the held-out items, is still there.
    assert interactions_of(without_items(leave_one_out(sequences).train, held_out)) <= interactions_of(warm)
    long_enough = without_items(sequences, held_out).lengths >= 3
    assert (warm.lengths[long_enough] == without_items(sequences, held_out).lengths[long_enough]).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_training_data_of_the_command_has_no_target(tmp_path: Path, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 6, 40).tolist()
    sequences = short_sequences(lengths, 12, seed)
    ids = [f"item {item}" for item in range(12)]
    Dataset(Catalog(pl.DataFrame({"item_id": ids, "title": ids, "text": ids})), sequences).write(
        tmp_path / "dataset", {}
    )
    np.save(tmp_path / "item_embeddings.npy", np.eye(12, dtype=np.float32))
    config = HoldOutConfig(share=0.4, seed=seed)
    held_out = hold_out_items(config, tmp_path / "dataset", tmp_path, tmp_path / "cold")
    warm = Dataset.read(dataset_from_raw(DataConfig("custom", held_out / "warm"))).sequences
    assert interactions_of(leave_one_out(warm).train).isdisjoint(targets_of(sequences))
    assert len(warm.items) > 0


def test_a_subset_translates_indices_both_ways_and_drops_items_outside_it() -> None:
    subset = CatalogueSubset(np.array([2, -1, 0, 1]))  # item 1 is outside
    local = subset.local(Histories.of([[1, 3, 1, 0], [2]]))
    ranked = subset.catalogue(Ranked(torch.from_numpy(local.items_BT), torch.zeros(2, 4)))
    assert ranked.items.tolist() == [[3, 0, -1, -1], [2, -1, -1, -1]]


def test_a_subset_keeps_the_times_of_its_items_and_the_users() -> None:
    subset = CatalogueSubset(np.array([2, -1, 0, 1]))
    local = subset.local(Histories.of([[1, 3, 1, 0], [2]], [[10, 20, 30, 40], [50]], ["a", "b"]))
    assert local.times_BT is not None
    assert local.times_BT.tolist() == [[20, 40, -1, -1], [50, -1, -1, -1]]
    assert local.user_ids == ("a", "b")


def test_cold_and_warm_targets_are_measured_separately() -> None:
    sequences = random_sequences(1, 80, 30)
    split, held_out = leave_one_out(sequences), np.arange(30) % 4 == 0
    train = without_items(split.train, held_out)
    recommender = Rotating(30, 0)
    groups = cold_and_warm(measure(recommender, split.test, train, 30), held_out)
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for user in split.test.users:
        *history, target = sequences.of_user(user).tolist()
        hits[target % 4 == 0].append(target in recommender.list_of(history, 10, exclude_seen=True))
    for group, cold in (("cold", True), ("warm", False)):
        assert groups[group]["cases"] == len(hits[cold])
        assert groups[group]["metrics"]["recall@10"] == pytest.approx(np.mean(hits[cold]))
    with pytest.raises(ValueError, match="No example has a cold target"):
        cold_and_warm(measure(recommender, split.test, train, 30), np.zeros(30, dtype=bool))
