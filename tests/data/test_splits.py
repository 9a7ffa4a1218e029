import numpy as np
import pytest

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories, Sequences, gather_right_padded
from rqrec.data.splits import leave_one_out, targets_in_history, temporal


def sequences_of(*users: list[int]) -> Sequences:
    items = np.array([item for user in users for item in user], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, users)])
    return Sequences(items, offsets, np.arange(len(items)), tuple(f"u{i}" for i in range(len(users))))


def test_leave_one_out_holds_out_the_last_two_positions() -> None:
    split = leave_one_out(sequences_of([10, 11, 12, 13, 14], [20, 21], [30, 31, 32]))
    assert [split.train.of_user(u).tolist() for u in range(3)] == [[10, 11, 12], [20, 21], [30]]
    assert split.validation.targets.tolist() == [13, 31]
    assert split.test.targets.tolist() == [14, 32]
    assert split.validation.histories(slice(0, 2)).items_BT.tolist() == [[10, 11, 12], [30, -1, -1]]
    assert split.test.histories(slice(0, 2)).items_BT.tolist() == [[10, 11, 12, 13], [30, 31, -1, -1]]
    assert split.test.users.tolist() == [0, 2]


def test_held_out_items_are_not_in_training() -> None:
    users = [list(range(100 * u, 100 * u + 3 + u)) for u in range(20)]
    split = leave_one_out(sequences_of(*users))
    held_out = {*split.validation.targets.tolist(), *split.test.targets.tolist()}
    assert held_out.isdisjoint(split.train.items.tolist())
    assert len(split.train.items) + len(held_out) == sum(map(len, users))


def test_targets_in_their_own_history_are_counted() -> None:
    # The third user's targets occur in the history of another user only.
    split = leave_one_out(sequences_of([1, 2, 3, 1], [4, 4, 4], [5, 6, 1, 2], [7, 8, 9, 9]))
    assert targets_in_history(split.validation) == 1
    assert targets_in_history(split.test) == 3
    assert targets_in_history(split.test.strided(2)) == 1


def test_a_log_with_too_short_sequences_is_refused() -> None:
    with pytest.raises(ValueError, match="No user has 3 or more"):
        leave_one_out(sequences_of([1, 2], [3]))


def test_histories_have_times_and_user_ids() -> None:
    items = np.array([1, 2, 3, 4, 5, 6, 7], dtype=np.int32)
    sequences = Sequences(items, np.array([0, 4, 7]), np.arange(7) * 100 + 5, ("ann", "bob"))
    histories = leave_one_out(sequences).test.histories(slice(0, 2))
    assert histories.times_BT.tolist() == [[5, 105, 205], [405, 505, PADDING]]
    assert histories.user_ids == ("ann", "bob")
    second = leave_one_out(sequences).validation.strided(2, 1).histories(slice(0, 1))
    assert (second.times_BT.tolist(), second.user_ids) == ([[405]], ("bob",))


def test_positions_are_not_returned_as_times() -> None:
    positions = np.array([0, 1, 2, 3, 0, 1, 2])
    in_order = Sequences(np.arange(7, dtype=np.int32), np.array([0, 4, 7]), positions, ("ann", "bob"))
    assert leave_one_out(in_order).test.histories(slice(0, 2)).times_BT is None
    assert in_order.last(2).times is None
    assert in_order.last(2).items.tolist() == [2, 3, 5, 6]


def test_mismatched_times_and_user_ids_are_refused() -> None:
    assert Histories.of([[4, 5], []], [[7, 8], []], ["ann", None]).times_BT.tolist() == [[7, 8], [-1, -1]]
    with pytest.raises(ValueError, match="History 0 has 2 items and 1 timestamps"):
        Histories.of([[4, 5], []], [[7], []])
    with pytest.raises(ValueError, match="2 histories have timestamps for 1"):
        Histories.of([[4, 5], []], [[7, 8]])
    with pytest.raises(ValueError, match="2 histories have 1 user ids"):
        Histories.of([[4, 5], []], user_ids=["ann"])


def test_padding_is_only_on_the_right() -> None:
    padded = Histories.of([[4, 5], [], [6]]).items_BT
    assert padded.tolist() == [[4, 5], [-1, -1], [6, -1]]
    assert Histories.of([[]]).items_BT.shape == (1, 0)
    sliced = gather_right_padded(np.arange(10), np.array([3, 9]), np.array([3, 1]))
    assert sliced.tolist() == [[3, 4, 5], [9, -1, -1]]


def test_a_temporal_split_without_examples_is_refused() -> None:
    # Each user has interactions in one period only, so no target of a later period has a history.
    times = np.arange(20)
    offsets = np.array([0, 16, 18, 20])
    sequences = Sequences(np.zeros(20, dtype=np.int32), offsets, times, ("a", "b", "c"))
    with pytest.raises(ValueError, match="There are 0 validation and 0 test examples"):
        temporal(sequences)
