"""The temporal protocol, against a direct implementation of its definition."""

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from rqrec.data.sequences import Sequences
from rqrec.data.splits import temporal


def make(times_of_users: list[list[int]]) -> Sequences:
    times = np.array([time for times in times_of_users for time in sorted(times)], dtype=np.int64)
    offsets = np.cumsum([0, *map(len, times_of_users)]).astype(np.int64)
    items = np.arange(len(times), dtype=np.int32)
    return Sequences(items, offsets, times, tuple(map(str, range(len(times_of_users)))))


def test_a_split_worked_by_hand() -> None:
    # Ten timestamps: the first 6 are for training, then 2 for validation, then 2 for test.
    sequences = make([[100, 103, 106, 108], [101, 102, 107, 109], [104, 105]])
    split = temporal(sequences, validation=0.2, test=0.2)
    assert [split.train.of_user(user).tolist() for user in range(3)] == [[0, 1], [4, 5], [8, 9]]
    assert split.validation.users.tolist() == [0, 1]
    assert split.validation.targets.tolist() == [2, 6]
    assert split.validation.histories(slice(0, 2)).items_BT.tolist() == [[0, 1], [4, 5]]
    assert split.test.targets.tolist() == [3, 7]
    assert split.test.histories(slice(0, 2)).items_BT.tolist() == [[0, 1, 2], [4, 5, 6]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(1000, 1030), min_size=1, max_size=8), min_size=3, max_size=8))
def test_training_and_validation_precede_the_test_period(times: list[list[int]]) -> None:
    sequences = make(times)
    try:
        split = temporal(sequences, 0.2, 0.2)
    except ValueError:
        reject()  # too many interactions with the same timestamp
    times_of = sequences.timestamps
    validation_times = times_of[split.validation.ends]
    test_times = times_of[split.test.ends]
    if len(validation_times):
        assert split.train.timestamps.max() < validation_times.min()
    if len(test_times):
        assert split.train.timestamps.max() < test_times.min()
    if len(validation_times) and len(test_times):
        assert validation_times.max() < test_times.min()
    for examples in (split.validation, split.test):
        assert (examples.ends > examples.starts).all()
        assert (examples.ends < sequences.offsets[examples.users + 1]).all()
        assert (np.diff(examples.users) > 0).all()


def test_a_dataset_without_time_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time"):
        temporal(make([[0, 1, 2], [0, 1]]))


def test_a_single_timestamp_for_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"All interactions have the timestamp 5, so .* Use leave_one_out"):
        temporal(make([[5, 5, 5, 5], [5, 5, 5]]))
    with pytest.raises(ValueError, match="Too many interactions have the timestamps 5 and 5"):
        temporal(make([[4, *[5] * 10], [*[5] * 10, 6]]))


@pytest.mark.parametrize(("validation", "test"), [(0, 0.1), (0.5, 0.5), (0.1, -1)])
def test_invalid_fractions_are_refused(validation: float, test: float) -> None:
    with pytest.raises(ValueError, match="above 0 and together below 1"):
        temporal(make([[1, 2, 3]]), validation, test)
