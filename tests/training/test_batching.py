from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.data.dataset import Dataset
from rqrec.data.sources.amazon import load_amazon
from rqrec.training.batching import bucketed_batches


def padding_fraction(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    return 1 - float(lengths.sum()) / padded


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=200), st.integers(1, 20))
def test_each_sequence_is_in_one_batch(lengths: list[int], batch_size: int) -> None:
    batches = list(bucketed_batches(np.array(lengths, dtype=np.int64), batch_size, np.random.default_rng(0)))
    indices = np.concatenate([*batches, np.zeros(0, dtype=np.int64)])
    assert sorted(indices.tolist()) == list(range(len(lengths)))
    for batch in batches:
        in_batch = np.array(lengths)[batch]
        assert 1 <= len(batch) <= batch_size
        assert 10 * in_batch.sum() >= 9 * in_batch.max() * len(batch)  # whole numbers: 0.9 has no exact float


def test_padding_is_below_a_tenth_on_long_tailed_lengths() -> None:
    lengths = (5 + np.random.default_rng(1).pareto(1.2, 50_000) * 3).astype(np.int64).clip(max=200)
    batches = list(bucketed_batches(lengths, 128, np.random.default_rng(0)))
    assert padding_fraction(lengths, batches) <= 0.1
    random_batches = np.array_split(np.random.default_rng(2).permutation(50_000), 390)
    assert padding_fraction(lengths, random_batches) > 0.5


def test_padding_is_below_a_tenth_on_beauty(shared_data: Path) -> None:
    folder = shared_data / "amazon" / "raw" / "beauty"
    lengths = Dataset.from_interactions(*load_amazon("beauty", folder)).sequences.lengths
    batches = list(bucketed_batches(lengths, 256, np.random.default_rng(0)))
    assert padding_fraction(lengths, batches) <= 0.1
    assert len(batches) < 1.3 * len(lengths) / 256  # few batches are cut short


def test_epochs_differ_but_are_reproducible_from_the_seed() -> None:
    lengths = np.random.default_rng(1).integers(1, 50, 1000)
    one, two = np.random.default_rng(0), np.random.default_rng(0)
    first = np.concatenate(list(bucketed_batches(lengths, 32, one)))
    assert (first == np.concatenate(list(bucketed_batches(lengths, 32, two)))).all()
    assert (first != np.concatenate(list(bucketed_batches(lengths, 32, one)))).any()


def test_a_batch_size_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        next(bucketed_batches(np.ones(3, dtype=np.int64), 0, np.random.default_rng(0)))
