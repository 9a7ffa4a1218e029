import numpy as np
import pytest

from rqrec.data.cooccurrence import (
    append_collaborative,
    collaborative_vectors,
    cooccurrence_counts,
    positive_pmi,
)
from rqrec.data.sequences import Sequences
from rqrec.data.splits import leave_one_out


def make(histories: list[list[int]]) -> Sequences:
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, histories)]).astype(np.int64)
    return Sequences(items, offsets, np.arange(len(items)), tuple(map(str, range(len(histories)))))


def two_groups(seed: int, users: int = 200) -> Sequences:
    """Users who interact either with items 0 to 9 or with items 10 to 19."""
    rng = np.random.default_rng(seed)
    return make([rng.choice(10, 6, replace=False) + 10 * (user % 2) for user in range(users)])


def test_pairs_are_counted_within_the_window_and_within_a_user() -> None:
    counts = cooccurrence_counts(make([[0, 1, 2, 0], [2, 3]]), items=5, window=2).toarray()
    expected = np.zeros((5, 5))
    for left, right in [(0, 1), (1, 2), (2, 0), (0, 2), (1, 0), (2, 3)]:
        expected[left, right] += 1
        expected[right, left] += 1
    np.testing.assert_array_equal(counts, expected)


def test_pmi_worked_by_hand() -> None:
    # Pairs (0, 1) twice and (1, 2), (2, 3) once: 8 ordered pairs, of which items 0 to 3 come first in 2, 3, 2, 1.
    pmi = positive_pmi(cooccurrence_counts(make([[0, 1], [0, 1], [1, 2], [2, 3]]), 4, 1)).toarray()
    assert pmi[0, 1] == pytest.approx(np.log(2 * 8 / (2 * 3)))
    assert pmi[1, 2] == pytest.approx(np.log(1 * 8 / (3 * 2)))
    assert pmi[2, 3] == pytest.approx(np.log(1 * 8 / (2 * 1)))
    assert pmi[0, 3] == 0


def test_items_that_co_occur_have_similar_vectors() -> None:
    vectors = collaborative_vectors(two_groups(0), items=20, rank=4)
    similarity = vectors @ vectors.T
    assert similarity[:10, :10].mean() > 0.3
    assert abs(similarity[:10, 10:]).mean() < 0.1
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(vectors, collaborative_vectors(two_groups(0), items=20, rank=4))


def test_the_random_projection_equals_a_full_svd() -> None:
    train = two_groups(0, users=30)
    left, values, _ = np.linalg.svd(positive_pmi(cooccurrence_counts(train, 20, 5)).toarray())
    expected = left[:, :4] * np.sqrt(values[:4])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = collaborative_vectors(train, items=20, rank=4)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-4)


def test_validation_and_test_interactions_are_not_used() -> None:
    sequences = two_groups(0)
    changed = sequences.items.copy()
    for held_out in (1, 2):  # change the validation and the test item of every user
        changed[sequences.offsets[1:] - held_out] = (changed[sequences.offsets[1:] - held_out] + 7) % 20
    other = Sequences(changed, sequences.offsets, sequences.timestamps, sequences.user_ids)
    vectors = [collaborative_vectors(leave_one_out(s).train, 20, 4) for s in (sequences, other)]
    np.testing.assert_array_equal(*vectors)


def test_an_item_without_interactions_falls_back_to_content() -> None:
    collaborative = collaborative_vectors(two_groups(0), items=22, rank=4)
    assert not collaborative[20:].any()
    content = np.zeros((22, 3), dtype=np.float32)
    content[:10, 0] = content[10:20, 1] = 1
    content[20, 0], content[21, 1] = (
        0.9,
        0.8,
    )  # the content of 20 is similar to the first group, of 21 to the second
    both = append_collaborative(content, collaborative, weight=0.5)
    assert both.shape == (22, 7)
    np.testing.assert_allclose(np.linalg.norm(both[:, 3:], axis=1), 0.5, rtol=1e-5)
    assert both[20, 3:] @ both[:10, 3:].mean(0) > 5 * abs(both[20, 3:] @ both[10:20, 3:].mean(0))
    assert both[21, 3:] @ both[10:20, 3:].mean(0) > 5 * abs(both[21, 3:] @ both[:10, 3:].mean(0))
    without_vectors = append_collaborative(content, np.zeros((22, 4), dtype=np.float32))
    assert not without_vectors[:, 3:].any()  # content alone


@pytest.mark.parametrize(
    ("rank", "window", "problem"), [(0, 1, "rank"), (20, 1, "1 to 19"), (4, 0, "window")]
)
def test_an_invalid_rank_or_window_is_refused(rank: int, window: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        collaborative_vectors(two_groups(0), 20, rank, window)


def test_a_log_without_co_occurrences_is_refused() -> None:
    with pytest.raises(ValueError, match="No two items"):
        collaborative_vectors(make([[0], [1]]), 4, 2)
