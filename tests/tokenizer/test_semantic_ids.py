import json
import math
import time
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.data.ids import IdMap
from rqrec.tokenizer.semantic_ids import (
    SemanticIdTable,
    collision_rate,
    deduplicate,
    group_sizes,
    level_usage,
    tuple_ranks,
)

HUGE = 2**62
code_rows = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.tuples(*[st.one_of(st.integers(0, 2), st.sampled_from([HUGE, HUGE + 1]))] * width), min_size=1
    )
)


def as_codes(rows) -> np.ndarray:
    return np.array(rows, dtype=np.int64)


def table(rows=((1, 0), (1, 0), (0, 2))) -> SemanticIdTable:
    codes = as_codes(rows)
    return SemanticIdTable.from_codes(IdMap([f"i{i}" for i in range(len(codes))]), codes, (2, 3), "abc")


@given(code_rows)
def test_the_deduplication_code_counts_earlier_items_with_the_same_tuple(rows):
    seen, expected = defaultdict(int), []
    for row in rows:
        expected.append(seen[row])
        seen[row] += 1
    assert deduplicate(as_codes(rows)).tolist() == expected
    assert group_sizes(as_codes(rows)).tolist() == [seen[row] for row in rows]
    shared = sum(seen[row] > 1 for row in rows) / len(rows)
    assert collision_rate(as_codes(rows)) == pytest.approx(shared)


@given(code_rows)
def test_ranks_order_rows_as_tuples_even_where_int64_would_overflow(rows):
    ranks = tuple_ranks(as_codes(rows))
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            assert (ranks[i] < ranks[j]) == (a < b)


def test_codes_that_would_overflow_a_key_stay_distinct():
    rows = [(0, 0, 0, 1), (0, 0, 0, 0), (2**32, 2**32, 2**32, 1), (2**62, 0, 2**62, 0), (0, 0, 0, 1)]
    assert deduplicate(as_codes(rows)).tolist() == [0, 0, 0, 0, 1]


def test_a_million_tuples_are_deduplicated_within_seconds():
    codes = np.random.default_rng(0).integers(0, 256, (1_000_000, 3))
    start = time.perf_counter()
    deduplicate(codes)
    assert time.perf_counter() - start < 5


def test_usage_worked_by_hand():
    first, second = level_usage(as_codes([(0, 1), (1, 1), (0, 1), (1, 1)]), (4, 3))
    assert first.usage == pytest.approx(0.5)
    assert first.perplexity == pytest.approx(2)
    assert first.entropy == pytest.approx(math.log(2))
    assert first.dead_codes == 2
    assert second.usage == pytest.approx(1 / 3)
    assert second.perplexity == pytest.approx(1)


def test_the_table_adds_one_level_as_large_as_the_largest_group():
    made = table()
    assert made.codes_NL.tolist() == [[1, 0, 0], [1, 0, 1], [0, 2, 0]]
    assert made.level_sizes == (2, 3, 2)
    assert made.codes_NL.dtype == np.int64


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=30))
def test_a_table_is_unique_and_round_trips_through_files(tmp_path_factory, rows):
    made = table(rows)
    assert len(np.unique(made.codes_NL, axis=0)) == len(rows)
    folder = tmp_path_factory.mktemp("table")
    made.write(folder)
    read = SemanticIdTable.read(folder)
    assert read.item_ids == made.item_ids
    assert np.array_equal(read.codes_NL, made.codes_NL)
    assert (read.level_sizes, read.tokenizer_hash) == (made.level_sizes, "abc")


@pytest.mark.parametrize(
    ("codes", "sizes", "message"),
    [
        ([[0, 0], [0, 0]], (2, 2), r"Item 1 has the same semantic ID \[0, 0\] as an earlier item"),
        ([[0, 0], [0, 2]], (2, 2), "Item 1 has code 2 at level 1"),
        ([[0, 0], [0, -1]], (2, 2), "Item 1 has a negative code"),
        ([[0, 0]], (2, 2), "2 items but 1 rows"),
        ([[0, 0], [0, 1]], (2, 2, 2), "2 levels, but level_sizes has 3"),
    ],
)
def test_a_contradictory_table_is_refused(codes, sizes, message):
    with pytest.raises(ValueError, match=message):
        SemanticIdTable(IdMap(["a", "b"]), as_codes(codes), sizes, "abc")


@pytest.mark.parametrize("codes", [np.zeros((0, 3), np.int64), np.zeros(3, np.int64), np.zeros((3, 2))])
def test_codes_must_be_an_integer_matrix_with_rows(codes):
    with pytest.raises(ValueError, match="integer matrix"):
        deduplicate(codes)


def test_contradictory_files_are_refused(tmp_path):
    table().write(tmp_path)
    metadata = json.loads((tmp_path / "semantic_ids.json").read_text())
    (tmp_path / "semantic_ids.json").write_text(json.dumps(metadata | {"level_sizes": [2, 3]}))
    with pytest.raises(ValueError, match=r"by semantic_ids\.json they must be"):
        SemanticIdTable.read(tmp_path)
    (tmp_path / "semantic_ids.json").write_text(json.dumps(metadata | {"format_version": 99}))
    with pytest.raises(ValueError, match="format_version 99"):
        SemanticIdTable.read(tmp_path)


def test_new_items_do_not_change_the_rows_of_old_items():
    """Old: (1,0) twice and (0,2) once. New: one more of each, and a new tuple."""
    old = table()
    grown = old.extend(["x", "y", "z"], as_codes([(1, 0), (0, 2), (0, 0)]))
    assert np.array_equal(grown.codes_NL[:3], old.codes_NL)
    assert grown.codes_NL[3:].tolist() == [[1, 0, 2], [0, 2, 1], [0, 0, 0]]
    assert grown.level_sizes == (2, 3, 3)
    assert grown.item_ids.all.to_list() == ["i0", "i1", "i2", "x", "y", "z"]


def test_new_items_get_the_lowest_free_deduplication_code():
    gap = SemanticIdTable(IdMap(["a", "b"]), as_codes([(0, 0), (0, 2)]), (1, 3), "abc")
    assert gap.extend(["c", "d"], as_codes([(0,), (0,)])).codes_NL[2:].tolist() == [[0, 1], [0, 3]]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), min_size=2, max_size=30), st.integers(1, 29))
def test_extending_item_by_item_equals_building_at_once(rows, first):
    first = min(first, len(rows) - 1)
    whole, grown = table(rows), table(rows[:first])
    for index in range(first, len(rows)):
        grown = grown.extend([f"i{index}"], as_codes(rows[index : index + 1]))
    assert np.array_equal(grown.codes_NL, whole.codes_NL)
    assert grown.level_sizes == whole.level_sizes


def test_extending_by_no_items_changes_nothing():
    assert np.array_equal(table().extend([], np.zeros((0, 2), np.int64)).codes_NL, table().codes_NL)


def test_new_items_of_another_tokenizer_or_with_a_known_id_are_refused():
    with pytest.raises(ValueError, match=r"\[new items, 2\]"):
        table().extend(["x"], as_codes([(0, 0, 0)]))
    with pytest.raises(ValueError, match="Item 3 has code 9 at level 0"):
        table().extend(["x"], as_codes([(9, 0)]))
    with pytest.raises(ValueError, match="'i0' occurs more than once"):
        table().extend(["i0"], as_codes([(0, 0)]))


def test_ids_are_written_as_language_model_tokens():
    assert table().llm_tokens() == ["<a_1><b_0><c_0>", "<a_1><b_0><c_1>", "<a_0><b_2><c_0>"]
    wide = SemanticIdTable(IdMap(["a"]), np.zeros((1, 27), np.int64), (1,) * 27, "abc")
    with pytest.raises(ValueError, match="27 levels"):
        wide.llm_tokens()
