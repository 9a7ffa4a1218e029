import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.data.sequences import Sequences
from rqrec.training.windows import Windows


def sequences_with(lengths: list[int]) -> Sequences:
    offsets = np.cumsum([0, *lengths])
    items = np.arange(offsets[-1], dtype=np.int32)
    return Sequences(items, offsets, np.arange(offsets[-1]), tuple(f"u{i}" for i in range(len(lengths))))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any),
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(0, 5),
)
def test_each_item_is_in_one_window_per_epoch_and_windows_are_consecutive(
    lengths: list[int], max_items: int, batch_size: int, seed: int
) -> None:
    windows = Windows(sequences_with(lengths), max_items, batch_size, seed)
    step = 0
    for epoch in range(2):
        seen = []
        while windows.epochs.epoch_and_index(step)[0] == epoch:
            batch = windows.batch(step)
            step += 1
            assert batch.shape[0] <= batch_size
            assert batch.shape[1] <= max_items
            for row in batch:
                real = row[row >= 0]
                assert len(real)
                assert (np.diff(real) == 1).all()
                seen += real.tolist()
        assert sorted(seen) == list(range(sum(lengths)))


def test_a_batch_depends_on_the_step_and_the_seed_only() -> None:
    train = sequences_with([30, 7, 12, 1, 25])
    one, other = Windows(train, 5, 3, 0), Windows(train, 5, 3, 0)
    for step in (9, 0, 4, 9):
        assert one.batch(step).tolist() == other.batch(step).tolist()
    assert any(one.batch(s).tolist() != Windows(train, 5, 3, 1).batch(s).tolist() for s in range(3))


def test_at_most_a_tenth_of_the_batches_is_padding() -> None:
    rng = np.random.default_rng(0)
    windows = Windows(sequences_with(rng.geometric(0.12, 5000).tolist()), 20, 64, 0)
    batches = [windows.batch(step) for step in range(300)]
    padding = sum((batch < 0).sum() for batch in batches) / sum(batch.size for batch in batches)
    assert padding < 0.1


def test_fixed_windows_are_counted_back_from_the_end_of_the_sequence() -> None:
    windows = Windows(sequences_with([7]), 3, 8, 0, moving=False)
    for epoch in range(3):
        steps = [step for step in range(20) if windows.epochs.epoch_and_index(step)[0] == epoch]
        seen = [row[row >= 0].tolist() for step in steps for row in windows.batch(step)]
        assert sorted(seen) == [[0], [1, 2, 3], [4, 5, 6]]


def test_random_ends_are_drawn_uniformly_at_every_step() -> None:
    """Over the epochs every item of a window is its last one, equally often."""
    windows = Windows(sequences_with([4, 2]), 4, 8, 0, moving=False, random_ends=True)
    ends = []
    for step in range(800):
        for row in windows.batch(step):
            assert row[row >= 0].tolist() == list(range(row[0], row.max() + 1))
            ends.append(row.max())
    counts = np.bincount(ends, minlength=6)
    assert counts.sum() == 800
    assert (abs(counts - [100, 100, 100, 100, 200, 200]) < 40).all()  # 4 standard deviations
    assert windows.batch(7).tolist() == windows.batch(7).tolist()


def test_windows_carry_times_and_users() -> None:
    offsets = np.array([0, 7, 9, 20])
    train = Sequences(np.arange(20, dtype=np.int32), offsets, 1000 + 7 * np.arange(20), ("a", "b", "c"))
    windows = Windows(train, 4, 3, 0)
    for step in range(8):
        histories = windows.histories(step)
        assert histories.items_BT.tolist() == windows.batch(step).tolist()
        real = histories.items_BT >= 0
        assert (histories.times_BT[real] == 1000 + 7 * histories.items_BT[real]).all()
        owners = np.searchsorted(offsets, histories.items_BT[:, 0], side="right") - 1
        assert histories.user_ids == tuple("abc"[owner] for owner in owners)
