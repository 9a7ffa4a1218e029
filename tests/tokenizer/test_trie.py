import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.tokenizer.trie import Trie


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 80), st.integers(1, 4))
def test_nodes_children_and_leaves_equal_a_brute_force_search(seed: int, n_items: int, n_levels: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.unique(rng.integers(0, 5, (n_items, n_levels)), axis=0)
    rng.shuffle(codes)
    trie = Trie.build(codes)
    prefixes = [()]
    for depth in range(n_levels + 1):
        here = trie.depths[depth]
        assert len(here.code) == len(prefixes)
        nodes_of_items = [prefixes.index(tuple(row[:depth])) for row in codes.tolist()]
        assert trie.nodes_of_items(torch.arange(len(codes)), depth).tolist() == nodes_of_items
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
                found = trie.children(depth, torch.tensor([[node]]))
                assert found.nodes.tolist() == [[list(children)]]
                assert found.codes.tolist() == [[expected]]
                assert found.exists.all()
                assert trie.n_children(depth, torch.tensor([node])).tolist() == [len(expected)]
        prefixes = below
    assert trie.item_of_leaf[trie.leaf_of_item].tolist() == list(range(len(codes)))
    for absent in ((9,), (*codes[0], 0), (*codes[0][:-1], 10**30)):
        assert trie.node([int(code) for code in absent]) is None


def test_children_are_padded_to_those_of_the_widest_node() -> None:
    trie = Trie.build(np.array([[1, 0], [0, 0], [0, 1], [0, 2]]))
    children = trie.children(1, torch.tensor([1, 0]))
    assert children.exists.tolist() == [[True, False, False], [True, True, True]]
    assert children.nodes[children.exists].tolist() == [3, 0, 1, 2]
    assert children.codes[children.exists].tolist() == [0, 0, 1, 2]
    assert children.nodes.max() == 3  # indices stay in range at padding
    assert trie.children(1, torch.tensor([1])).codes.shape == (1, 1)
    assert trie.children(1, torch.zeros(0, 2, dtype=torch.int64)).codes.shape == (0, 2, 1)


def test_counts_of_allowed_items_are_sums_over_the_leaves_below() -> None:
    trie = Trie.build(np.array([[1, 0], [0, 0], [0, 1], [0, 2]]))
    assert [counts.tolist() for counts in trie.allowed_below(None)] == [[4], [3, 1], [1, 1, 1, 1]]
    allowed = torch.tensor([True, False, True, False])
    assert [counts.tolist() for counts in trie.allowed_below(allowed)] == [[2], [1, 1], [0, 1, 0, 1]]


def test_a_node_is_exhausted_once_all_its_allowed_items_are_excluded() -> None:
    trie = Trie.build(np.array([[1, 0], [0, 0], [0, 1], [0, 2]]))
    items = torch.tensor([[1, 1, 3, -1], [-1, -1, -1, -1], [3, 2, 1, 2]])
    for allowed, expected in ((None, [set(), set(), {0}]), ([True, False, True, True], [set(), set(), {0}])):
        allowed = None if allowed is None else torch.tensor(allowed)
        exhausted = trie.exhausted_nodes(
            1, trie.excluded_leaves(items, allowed), trie.allowed_below(allowed)[1]
        )
        assert [set(row) - {2} for row in exhausted.tolist()] == expected
    allowed = torch.tensor([True, True, False, True])
    exhausted = trie.exhausted_nodes(1, trie.excluded_leaves(items, allowed), trie.allowed_below(allowed)[1])
    assert [set(row) - {2} for row in exhausted.tolist()] == [{0}, set(), {0}]


def test_items_sharing_a_prefix_have_the_same_first_codes() -> None:
    trie = Trie.build(np.array([[1, 0], [0, 0], [0, 1], [0, 2]]))
    assert [sorted(trie.items_sharing_prefix(2, depth).tolist()) for depth in range(3)] == [
        [0, 1, 2, 3],
        [1, 2, 3],
        [2],
    ]


def test_repeated_tuples_are_refused_with_their_items() -> None:
    with pytest.raises(ValueError, match=r"Items 0 and 2 have the same semantic ID \(1, 1\)"):
        Trie.build(np.array([[1, 1], [0, 1], [1, 1]]))
