"""Room for new items: the formula, by hand, and that what comes out is still a model."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
from rqrec.models.architectures import ARCHITECTURES
from rqrec.models.interface import CodeLookup
from rqrec.retrieval.beam_search import beam_search, score_items
from rqrec.retrieval.cold_items import ColdItemSmoothing
from rqrec.retrieval.ranking import rank_scores
from rqrec.tokenizer.trie import Trie
from tests.retrieval.test_beam_search import random_codes, random_histories, random_model

SIZES = (3, 4, 5)
architectures = pytest.mark.parametrize("name", ARCHITECTURES)


def by_hand(
    own: np.ndarray, codes: np.ndarray, known: np.ndarray, prefix: list[int], share: float
) -> np.ndarray:
    """The probabilities of the codes after a prefix, from the model's own."""
    below = (codes[:, : len(prefix)] == prefix).all(axis=1)
    after = {int(code) for code in codes[below, len(prefix)]}
    old = {int(code) for code in codes[below & known, len(prefix)]}
    new = sorted(after - old)
    if not new:
        return own
    room = share if (below & known).any() else 1.0
    expected = own * (1 - room)
    expected[new] += room / len(new)
    return expected


@architectures
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), n_items=st.integers(1, 50), share=st.sampled_from([0.05, 0.5]))
def test_every_prefix_gives_new_codes_their_share(name: str, seed: int, n_items: int, share: float) -> None:
    codes = random_codes(seed, n_items, SIZES)
    known = np.random.default_rng(seed).random(len(codes)) < 0.7
    model, lookup = random_model(seed, SIZES, name), CodeLookup.of(codes)
    welcoming = ColdItemSmoothing(model, lookup.codes_NL, torch.from_numpy(known), share)
    batch = lookup.batch(Histories(random_histories(seed, len(codes), 2, 6)), 6)
    context = welcoming.encode(batch)
    for level in range(3):
        every = list(itertools.product(*map(range, SIZES[:level])))
        prefixes = torch.tensor(every, dtype=torch.int64).view(1, len(every), level).expand(2, -1, -1)
        found = welcoming.next_level(context, prefixes)
        torch.testing.assert_close(found.exp().sum(-1), torch.ones(found.shape[:2]))
        own = model.next_level(model.encode(batch), prefixes).exp().detach().numpy()
        for row, (prefix, probabilities) in enumerate(zip(prefixes[0].tolist(), own[0], strict=True)):
            expected = by_hand(probabilities, codes, known, prefix, share)
            np.testing.assert_allclose(found[0, row].exp().detach().numpy(), expected, atol=1e-5)


@architectures
def test_a_beam_as_wide_as_the_catalogue_equals_exhaustive_scoring(name: str) -> None:
    codes = random_codes(1, 40, SIZES)
    known = np.arange(40) % 4 > 0
    lookup, trie = CodeLookup.of(codes), Trie.build(codes)
    welcoming = ColdItemSmoothing(random_model(1, SIZES, name), lookup.codes_NL, torch.from_numpy(known), 0.2)
    batch = lookup.batch(Histories(random_histories(1, 40, 5, 7)), 6)
    found = beam_search(welcoming, batch, trie, 40, beam_width=40)
    expected = rank_scores(score_items(welcoming, batch, lookup.codes_NL), 40)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-5)
    plain = score_items(welcoming.model, batch, lookup.codes_NL)
    better = score_items(welcoming, batch, lookup.codes_NL) > plain
    assert better[:, ~known].float().mean() > better[:, known].float().mean()
    assert (found.items != PADDING).all()


def test_without_new_items_nothing_changes() -> None:
    codes = random_codes(2, 30, SIZES)
    model, lookup = random_model(2, SIZES, "hierarchical"), CodeLookup.of(codes)
    welcoming = ColdItemSmoothing(model, lookup.codes_NL, torch.ones(30, dtype=torch.bool), 0.2)
    batch = lookup.batch(Histories(random_histories(2, 30, 4, 6)), 6)
    ours, plain = (score_items(one, batch, lookup.codes_NL) for one in (welcoming, model))
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_that_cannot_be_is_refused(share: float) -> None:
    codes = random_codes(2, 5, SIZES)
    with pytest.raises(ValueError, match=f"share of new items is {share}"):
        ColdItemSmoothing(
            random_model(2, SIZES), torch.from_numpy(codes), torch.ones(5, dtype=torch.bool), share
        )
