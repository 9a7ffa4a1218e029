"""Cold-item smoothing against its formula computed by hand, and as a retrieval model."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
from rqrec.models.architectures import ARCHITECTURES
from rqrec.models.retrieval_model import CodeLookup
from rqrec.retrieval.beam_search import beam_search, score_items
from rqrec.retrieval.cold_items import ColdItemSmoothing
from rqrec.retrieval.ranking import rank_scores
from rqrec.tokenizer.trie import Trie
from tests.retrieval.test_beam_search import random_codes, random_histories, random_model

SIZES = (3, 4, 5)
architectures = pytest.mark.parametrize("name", ARCHITECTURES)


def expected_probabilities(
    model_probabilities: np.ndarray, codes: np.ndarray, trained: np.ndarray, prefix: list[int], share: float
) -> np.ndarray:
    """The smoothed probabilities of the codes after a prefix."""
    below = (codes[:, : len(prefix)] == prefix).all(axis=1)
    after = {int(code) for code in codes[below, len(prefix)]}
    trained_codes = {int(code) for code in codes[below & trained, len(prefix)]}
    cold = sorted(after - trained_codes)
    if not cold:
        return model_probabilities
    reserved = share if (below & trained).any() else 1.0
    expected = model_probabilities * (1 - reserved)
    expected[cold] += reserved / len(cold)
    return expected


@architectures
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), n_items=st.integers(1, 50), share=st.sampled_from([0.05, 0.5]))
def test_every_prefix_gives_its_cold_codes_their_share(
    name: str, seed: int, n_items: int, share: float
) -> None:
    codes = random_codes(seed, n_items, SIZES)
    trained = np.random.default_rng(seed).random(len(codes)) < 0.7
    model, lookup = random_model(seed, SIZES, name), CodeLookup.from_codes(codes)
    smoothed = ColdItemSmoothing(model, Trie.build(codes), torch.from_numpy(trained), share)
    batch = lookup.batch(Histories(random_histories(seed, len(codes), 2, 6)), 6)
    context = smoothed.encode(batch)
    for level in range(3):
        every = list(itertools.product(*map(range, SIZES[:level])))
        prefixes = torch.tensor(every, dtype=torch.int64).view(1, len(every), level).expand(2, -1, -1)
        log_probs = smoothed.next_level(context, prefixes)
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(log_probs.shape[:2]))
        plain = model.next_level(model.encode(batch), prefixes).exp().detach().numpy()
        for row, (prefix, probabilities) in enumerate(zip(prefixes[0].tolist(), plain[0], strict=True)):
            expected = expected_probabilities(probabilities, codes, trained, prefix, share)
            np.testing.assert_allclose(log_probs[0, row].exp().detach().numpy(), expected, atol=1e-5)


@architectures
def test_a_beam_as_wide_as_the_catalogue_equals_exhaustive_scoring(name: str) -> None:
    codes = random_codes(1, 40, SIZES)
    trained = np.arange(40) % 4 > 0
    lookup, trie = CodeLookup.from_codes(codes), Trie.build(codes)
    smoothed = ColdItemSmoothing(random_model(1, SIZES, name), trie, torch.from_numpy(trained), 0.2)
    batch = lookup.batch(Histories(random_histories(1, 40, 5, 7)), 6)
    found = beam_search(smoothed, batch, trie, 40, beam_width=40)
    expected = rank_scores(score_items(smoothed, batch, lookup.codes_NL), 40)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-5)
    plain = score_items(smoothed.model, batch, lookup.codes_NL)
    better = score_items(smoothed, batch, lookup.codes_NL) > plain
    assert better[:, ~trained].float().mean() > better[:, trained].float().mean()
    assert (found.items != PADDING).all()


def test_without_cold_items_nothing_changes() -> None:
    codes = random_codes(2, 30, SIZES)
    model, lookup = random_model(2, SIZES, "hierarchical"), CodeLookup.from_codes(codes)
    smoothed = ColdItemSmoothing(model, Trie.build(codes), torch.ones(30, dtype=torch.bool), 0.2)
    batch = lookup.batch(Histories(random_histories(2, 30, 4, 6)), 6)
    ours, plain = (score_items(each, batch, lookup.codes_NL) for each in (smoothed, model))
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    codes = random_codes(2, 5, SIZES)
    with pytest.raises(ValueError, match=f"share of cold items is {share}"):
        ColdItemSmoothing(random_model(2, SIZES), Trie.build(codes), torch.ones(5, dtype=torch.bool), share)
