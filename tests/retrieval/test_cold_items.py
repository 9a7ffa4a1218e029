"""Cold-item smoothing against its formula computed by hand, and as a retrieval model."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
from rqrec.models.architectures import ARCHITECTURES
from rqrec.models.retrieval_model import CodeLookup
from rqrec.retrieval.beam_search import beam_search
from rqrec.retrieval.cold_items import ColdItemSmoothing
from rqrec.retrieval.ranking import rank_scores
from rqrec.retrieval.scoring import next_log_probs, score_items
from rqrec.tokenizer.trie import Trie
from tests.retrieval.test_beam_search import random_codes, random_histories, random_model

SIZES = (3, 4, 5)
architectures = pytest.mark.parametrize("name", ARCHITECTURES)


def expected_probabilities(
    logits: np.ndarray, codes: np.ndarray, trained: np.ndarray, prefix: list[int], share: float
) -> dict[int, float]:
    """The smoothed probability of each code after a prefix, from the model's logits."""
    below = (codes[:, : len(prefix)] == prefix).all(axis=1)
    after = {int(code) for code in codes[below, len(prefix)]}
    trained_codes = {int(code) for code in codes[below & trained, len(prefix)]}
    cold = after - trained_codes
    reserved = 0.0 if not cold else share if trained_codes else 1.0
    total = sum(math.exp(logits[code]) for code in trained_codes)
    return {
        code: reserved / len(cold) if code in cold else (1 - reserved) * math.exp(logits[code]) / total
        for code in after
    }


@architectures
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), n_items=st.integers(1, 50), share=st.sampled_from([0.05, 0.5]))
def test_every_prefix_gives_its_cold_codes_their_share(
    name: str, seed: int, n_items: int, share: float
) -> None:
    codes = random_codes(seed, n_items, SIZES)
    trained = np.random.default_rng(seed).random(len(codes)) < 0.7
    model, lookup, trie = random_model(seed, SIZES, name), CodeLookup.from_codes(codes), Trie.build(codes)
    smoothed = ColdItemSmoothing(model, trie, torch.from_numpy(trained), share)
    batch = lookup.batch(Histories(random_histories(seed, len(codes), 2, 6)), 6)
    context = smoothed.encode(batch)
    for level in range(3):
        prefixes = np.unique(codes[:, :level], axis=0)
        prefixes_BKl = torch.from_numpy(prefixes).expand(2, -1, -1)
        nodes_BK = torch.arange(len(prefixes)).expand(2, -1)
        with torch.no_grad():
            children, log_probs = next_log_probs(smoothed, context, trie, prefixes_BKl, nodes_BK)
            logits = model.next_logits(context, prefixes_BKl).numpy()
        for row, column in np.ndindex(2, len(prefixes)):
            exists = children.exists[row, column]
            got_codes = children.codes[row, column, exists].tolist()
            got = dict(zip(got_codes, log_probs[row, column, exists].exp().tolist(), strict=True))
            prefix = prefixes[column].tolist()
            expected = expected_probabilities(logits[row, column], codes, trained, prefix, share)
            assert got == pytest.approx(expected, abs=1e-5)
    sums = score_items(smoothed, batch, trie).exp().sum(1)
    torch.testing.assert_close(sums, torch.ones(2), atol=1e-5, rtol=0)


@architectures
def test_a_beam_as_wide_as_the_catalogue_equals_exhaustive_scoring(name: str) -> None:
    codes = random_codes(1, 40, SIZES)
    trained = np.arange(40) % 4 > 0
    lookup, trie = CodeLookup.from_codes(codes), Trie.build(codes)
    smoothed = ColdItemSmoothing(random_model(1, SIZES, name), trie, torch.from_numpy(trained), 0.2)
    batch = lookup.batch(Histories(random_histories(1, 40, 5, 7)), 6)
    found = beam_search(smoothed, batch, trie, 40, beam_width=40)
    expected = rank_scores(score_items(smoothed, batch, trie), 40)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-5)
    plain = score_items(smoothed.model, batch, trie)
    better = score_items(smoothed, batch, trie) > plain
    assert better[:, ~trained].float().mean() > better[:, trained].float().mean()
    assert (found.items != PADDING).all()


def test_without_cold_items_nothing_changes() -> None:
    codes = random_codes(2, 30, SIZES)
    model, lookup = random_model(2, SIZES, "hierarchical"), CodeLookup.from_codes(codes)
    trie = Trie.build(codes)
    smoothed = ColdItemSmoothing(model, trie, torch.ones(30, dtype=torch.bool), 0.2)
    batch = lookup.batch(Histories(random_histories(2, 30, 4, 6)), 6)
    ours, plain = (score_items(each, batch, trie) for each in (smoothed, model))
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    codes = random_codes(2, 5, SIZES)
    with pytest.raises(ValueError, match=f"share of cold items is {share}"):
        ColdItemSmoothing(random_model(2, SIZES), Trie.build(codes), torch.ones(5, dtype=torch.bool), share)
