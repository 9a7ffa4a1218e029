import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.tokenizer.trie import Trie


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 80), st.integers(1, 4))
def test_children_and_ranges_equal_a_search_by_hand(seed: int, n_items: int, n_levels: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.unique(rng.integers(0, 5, (n_items, n_levels)), axis=0)
    rng.shuffle(codes)
    trie = Trie.build(codes)
    prefixes = [()]
    for depth in range(n_levels + 1):
        here = trie.depths[depth]
        assert len(here.code) == len(prefixes)
        below = []
        for node, prefix in enumerate(prefixes):
            mine = [i for i, row in enumerate(codes) if tuple(row[:depth]) == prefix]
            leaves = range(here.leaf_start[node], here.leaf_start[node + 1])
            assert sorted(trie.item_of_leaf[list(leaves)].tolist()) == mine
            assert trie.node(prefix) == node
            assert here.first_item[node] == min(mine)
            if depth < n_levels:
                expected = sorted({int(codes[i, depth]) for i in mine})
                children = range(here.first_child[node], here.first_child[node + 1])
                assert trie.depths[depth + 1].code[list(children)].tolist() == expected
                below += [(*prefix, code) for code in expected]
        prefixes = below
    assert trie.item_of_leaf[trie.leaf_of_item].tolist() == list(range(len(codes)))
    for absent in ((9,), (*codes[0], 0), (*codes[0][:-1], 10**30)):
        assert trie.node([int(code) for code in absent]) is None


def test_counts_of_allowed_items_are_those_of_the_leaves_below() -> None:
    trie = Trie.build(np.array([[1, 0], [0, 0], [0, 1], [0, 2]]))
    assert [counts.tolist() for counts in trie.allowed_below(None)] == [[4], [3, 1], [1, 1, 1, 1]]
    allowed = torch.tensor([True, False, True, False])
    assert [counts.tolist() for counts in trie.allowed_below(allowed)] == [[2], [1, 1], [0, 1, 0, 1]]


def test_nodes_are_emptied_by_their_last_allowed_item_whatever_padding_and_repeats() -> None:
    trie = Trie.build(np.array([[1, 0], [0, 0], [0, 1], [0, 2]]))
    items = torch.tensor([[1, 1, 3, -1], [-1, -1, -1, -1], [3, 2, 1, 2]])
    for allowed, expected in ((None, [set(), set(), {0}]), ([True, False, True, True], [set(), set(), {0}])):
        allowed = None if allowed is None else torch.tensor(allowed)
        emptied = trie.emptied(1, trie.excluded_leaves(items, allowed), trie.allowed_below(allowed)[1])
        assert [set(row) - {2} for row in emptied.tolist()] == expected
    allowed = torch.tensor([True, True, False, True])
    emptied = trie.emptied(1, trie.excluded_leaves(items, allowed), trie.allowed_below(allowed)[1])
    assert [set(row) - {2} for row in emptied.tolist()] == [{0}, set(), {0}]


def test_items_beside_an_item_share_its_first_codes() -> None:
    trie = Trie.build(np.array([[1, 0], [0, 0], [0, 1], [0, 2]]))
    assert [sorted(trie.items_beside(2, depth).tolist()) for depth in range(3)] == [
        [0, 1, 2, 3],
        [1, 2, 3],
        [2],
    ]


def test_repeated_tuples_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"Items 0 and 2 have the same semantic ID \(1, 1\)"):
        Trie.build(np.array([[1, 1], [0, 1], [1, 1]]))
