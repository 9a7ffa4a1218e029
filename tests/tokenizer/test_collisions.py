import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.tokenizer.collisions import reassign
from rqrec.tokenizer.semantic_ids import collision_rate, group_sizes

# Costs of 4 codes (columns) for 5 items (rows); items 0 to 3 share a prefix.
CODES = np.array([[0, 1], [0, 1], [0, 1], [0, 3], [1, 1]])
COSTS = np.array(
    [
        [5.0, 1.0, 2.0, 9.0],
        [4.0, 0.5, 1.0, 9.0],
        [9.0, 2.0, 3.0, 9.0],
        [9.0, 9.0, 9.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
    ]
)


def test_the_cheapest_item_stays_and_the_others_move_at_the_lowest_total_cost():
    """Item 1 has the lowest cost for code 1. Items 0 and 2 get codes 0 and 2: 5 + 3 is less than 2 + 9."""
    moved = reassign(CODES, lambda rows: COSTS[rows], 4)
    assert moved.tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 1]]
    assert CODES[0, 1] == 1  # the input does not change


def test_ties_are_broken_by_item_index():
    codes = np.zeros((3, 2), dtype=np.int64)
    moved = reassign(codes, lambda rows: np.ones((len(rows), 3)), 3)
    assert moved[0].tolist() == [0, 0]
    assert sorted(moved[:, 1].tolist()) == [0, 1, 2]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 7)), min_size=1, max_size=8))
def test_ids_become_unique_deterministically_and_items_without_collision_never_move(rows):
    codes = np.array(rows)
    costs = np.random.default_rng(0).random((len(codes), 8))
    moved = reassign(codes, lambda chosen: costs[chosen], 8)
    assert collision_rate(moved) == 0
    assert np.array_equal(moved[:, :-1], codes[:, :-1])
    alone = group_sizes(codes) == 1
    assert np.array_equal(moved[alone], codes[alone])
    assert np.array_equal(moved, reassign(codes, lambda chosen: costs[chosen], 8))


def test_a_prefix_with_more_items_than_codes_is_refused():
    with pytest.raises(ValueError, match=r"3 items share the codes \[7\].*has 2 codes"):
        reassign(np.array([[7, 0], [7, 0], [7, 1]]), lambda rows: np.ones((len(rows), 2)), 2)
