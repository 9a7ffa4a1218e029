"""What a model says of the items of a catalogue."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.data.ids import IdMap
from rqrec.data.sequences import Histories
from rqrec.models.architectures import ARCHITECTURES
from rqrec.models.retrieval_model import CodeLookup
from rqrec.retrieval.beam_search import beam_search
from rqrec.retrieval.scoring import code_log_probs, score_items
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.tokenizer.trie import Trie
from tests.retrieval.test_beam_search import random_codes, random_histories, random_model

SIZES = (3, 4, 12)
architectures = pytest.mark.parametrize("name", ARCHITECTURES)


@architectures
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), n_items=st.integers(1, 60), deduplicated=st.booleans())
def test_the_probabilities_of_all_items_sum_to_one_also_with_new_items(
    name: str, seed: int, n_items: int, deduplicated: bool
) -> None:
    rng = np.random.default_rng(seed)
    if deduplicated:
        table = SemanticIdTable.from_codes(
            IdMap([f"item {item}" for item in range(n_items)]),
            rng.integers(0, (8, 9), (n_items, 2)),
            (8, 9),
            "a test",
        )
        codes, new = table.codes_NL, table.extend(["new", "newer"], rng.integers(0, (8, 9), (2, 2))).codes_NL
    else:
        new = random_codes(seed, n_items + 2, SIZES)
        codes = new[:-2]
    sizes = tuple(int(size) for size in new.max(axis=0) + 1)
    model = random_model(seed, sizes, name)
    histories = Histories(random_histories(seed, len(codes), 3, 6))
    for rows in (codes, new):
        batch = CodeLookup.from_codes(rows).batch(histories, 6)
        sums = score_items(model, batch, Trie.build(rows)).exp().sum(1)
        torch.testing.assert_close(sums, torch.ones(3), atol=1e-4, rtol=0)


@architectures
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), n_items=st.integers(1, 40), chunk=st.integers(1, 9))
def test_scores_are_sums_of_log_softmaxes_over_the_codes_that_continue_a_prefix(
    name: str, seed: int, n_items: int, chunk: int
) -> None:
    """Computed item by item, without a trie."""
    codes = random_codes(seed, n_items, SIZES)
    model, trie = random_model(seed, SIZES, name), Trie.build(codes)
    batch = CodeLookup.from_codes(codes).batch(Histories(random_histories(seed, len(codes), 2, 6)), 6)
    expected = np.zeros((2, len(codes), 3))
    with torch.no_grad():
        context = model.encode(batch)
        for item, row in enumerate(codes):
            for level in range(3):
                siblings = np.unique(codes[(codes[:, :level] == row[:level]).all(axis=1), level])
                prefix = torch.from_numpy(row[:level]).expand(2, 1, -1)
                logits = model.next_logits(context, prefix)[:, 0, torch.from_numpy(siblings)]
                position = siblings.tolist().index(row[level])
                expected[:, item, level] = logits.log_softmax(1)[:, position].numpy()
        items = torch.from_numpy(np.random.default_rng(seed).integers(0, len(codes), (2, 5)))
        by_code = code_log_probs(model, context, trie, items)
    for row in range(2):
        np.testing.assert_allclose(by_code[row], expected[row, items[row]], atol=1e-4)
    scores = score_items(model, batch, trie, chunk=chunk)
    np.testing.assert_allclose(scores, expected.sum(2), atol=1e-4)


class Counting:
    """A model that records how many prefixes of each length it reads."""

    def __init__(self, model: Any) -> None:
        self.model, self.level_sizes, self.max_items = model, model.level_sizes, model.max_items
        self.read: list[tuple[int, int]] = []

    def encode(self, batch: Any) -> Any:
        return self.model.encode(batch)

    def next_logits(self, context: Any, prefix_BKl: torch.Tensor) -> torch.Tensor:
        self.read.append((prefix_BKl.shape[2], prefix_BKl.shape[1]))
        return self.model.next_logits(context, prefix_BKl)


@architectures
def test_levels_of_single_children_cost_no_call_and_single_children_no_prefix(name: str) -> None:
    # Code 2 is the only one of level 1; below code 0 of level 0, three items differ in the third code.
    codes = np.array([[0, 2, 0], [0, 2, 4], [0, 2, 7], *([code, 2, code] for code in range(1, 9))])
    sizes = (9, 3, 9)
    trie, model = Trie.build(codes), Counting(random_model(0, sizes, name))
    batch = CodeLookup.from_codes(codes).batch(Histories.of([[1, 2], [5]]), 6)
    context = model.encode(batch)
    n, expected = len(codes), [(0, 1), (2, 1)]
    found = beam_search(model, batch, trie, n, beam_width=n)
    assert model.read == expected
    scores = score_items(model, batch, trie)
    assert model.read == 2 * expected
    by_code = code_log_probs(model, context, trie, torch.arange(n).expand(2, -1))
    assert model.read == 3 * expected  # the three items below code 0 share their prefix
    assert (by_code[:, :, 1] == 0).all()
    assert (by_code[:, 3:, 2] == 0).all()
    assert (by_code[:, :3, 2] < 0).all()
    torch.testing.assert_close(by_code.sum(2), scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.scores, scores.gather(1, found.items), atol=1e-5, rtol=0)


@architectures
def test_one_item_has_probability_one_without_a_call(name: str) -> None:
    codes = np.array([[2, 1, 0]])
    model = Counting(random_model(7, (3, 3, 9), name))
    batch = CodeLookup.from_codes(codes).batch(Histories.of([[], [0]]), 6)
    assert beam_search(model, batch, Trie.build(codes), 1, beam_width=1).scores.tolist() == [[0.0], [0.0]]
    assert model.read == []
