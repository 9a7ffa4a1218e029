"""Beam search compared with exhaustive scoring, on random catalogues with uneven tries."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
from rqrec.models.architectures import ARCHITECTURES, AnyModel, architecture, build_model
from rqrec.models.retrieval_model import Batch, CodeLookup
from rqrec.retrieval.beam_search import beam_search
from rqrec.retrieval.ranking import order_keys, rank_scores
from rqrec.retrieval.scoring import code_log_probs, score_items
from rqrec.tokenizer.trie import Trie


def random_codes(seed: int, n_items: int, level_sizes: tuple[int, ...]) -> np.ndarray:
    """Unique tuples, drawn unevenly so that some prefixes have many items and others one."""
    rng = np.random.default_rng(seed)
    every = np.array(list(itertools.product(*map(range, level_sizes))))
    weights = np.exp(-0.15 * every[:, 0]) * rng.random(len(every))
    chosen = rng.choice(len(every), size=min(n_items, len(every)), replace=False, p=weights / weights.sum())
    return every[chosen]


architectures = pytest.mark.parametrize("name", ARCHITECTURES)


def random_model(
    seed: int, level_sizes: tuple[int, ...], name: str = "decoder_only", **options: Any
) -> AnyModel:
    torch.manual_seed(seed)
    model = build_model(architecture(name).config(level_sizes, 6, 12, 16, 2, 2, 0.1, **options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # far from uniform, so that wrong scores show
    return model


def random_histories(seed: int, n_items: int, n_users: int, longest: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    histories = np.full((n_users, longest), PADDING)
    for user in range(n_users):
        length = rng.integers(0, longest + 1)
        histories[user, :length] = rng.integers(0, n_items, length)
    return histories


def with_times_and_users(items_BT: np.ndarray) -> Histories:
    rng = np.random.default_rng(0)
    times_BT = rng.integers(1, 10**7, items_BT.shape).cumsum(axis=1)
    return Histories(items_BT, times_BT, tuple(f"user {row}" for row in range(len(items_BT))))


@architectures
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_items=st.integers(1, 60),
    level_sizes=st.sampled_from([(3, 4, 5), (8, 1, 4), (5, 5), (2, 2, 2, 9), (40,)]),
    exclude=st.booleans(),
    options=st.sampled_from(
        [{}, {"user_buckets": 3, "time_gaps": 4}, {"tie_codes": True}, {"tie_codes": False}]
    ),
)
def test_a_beam_as_wide_as_the_catalogue_equals_exhaustive_scoring(
    name: str,
    seed: int,
    n_items: int,
    level_sizes: tuple[int, ...],
    exclude: bool,
    options: dict[str, Any],
) -> None:
    codes = random_codes(seed, n_items, level_sizes)
    model = random_model(seed, level_sizes, name, **options)
    trie, lookup = Trie.build(codes), CodeLookup.from_codes(codes)
    items = random_histories(seed, len(codes), 4, 8)
    batch = lookup.batch(with_times_and_users(items), model.max_items)
    excluded = torch.from_numpy(items) if exclude else None
    n = len(codes)

    found = beam_search(model, batch, trie, n, beam_width=n, excluded_BX=excluded)
    scores = score_items(model, batch, trie, chunk=7)
    expected = rank_scores(scores, n, excluded_BX=excluded)

    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=0)
    # Orders agree wherever the scores are further apart than float32 rounding.
    for row in range(len(items)):
        for rank in np.flatnonzero((found.items[row] != expected.items[row]).numpy()):
            one, other = found.items[row, rank], expected.items[row, rank]
            assert abs(scores[row, one] - scores[row, other]) < 1e-4
    if exclude:
        for row, history in enumerate(items):
            assert not set(found.items[row].tolist()) & set(history.tolist()) - {PADDING}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_items=st.integers(1, 60),
    level_sizes=st.sampled_from([(3, 4, 5), (8, 1, 4), (2, 2, 2, 9), (40,)]),
    share=st.floats(0, 1),
    boost=st.sampled_from([0.0, 1.0, 5.0]),
)
def test_filters_and_boosts_equal_exhaustive_scoring(
    seed: int, n_items: int, level_sizes: tuple[int, ...], share: float, boost: float
) -> None:
    codes = random_codes(seed, n_items, level_sizes)
    model, trie, lookup = (
        random_model(seed, level_sizes, "hierarchical"),
        Trie.build(codes),
        CodeLookup.from_codes(codes),
    )
    items = random_histories(seed, len(codes), 4, 8)
    batch, excluded = lookup.batch(Histories(items), 6), torch.from_numpy(items)
    rng = np.random.default_rng(seed)
    allowed = torch.from_numpy(rng.random(len(codes)) < share)
    boosts = torch.from_numpy(rng.normal(size=len(codes)).astype(np.float32)) * boost
    n = len(codes)
    scores = (score_items(model, batch, trie) + boosts).masked_fill(~allowed, -torch.inf)
    ranked = rank_scores(scores, n, excluded_BX=excluded)

    def found(k: int) -> Any:
        return beam_search(
            model,
            batch,
            trie,
            k,
            beam_width=k,
            excluded_BX=excluded,
            allowed_N=allowed,
            boost_N=boosts if boost else None,
        )

    wide, narrow = found(n), found(min(n, 5))
    torch.testing.assert_close(wide.scores, ranked.scores, atol=1e-4, rtol=0)
    for row in range(4):
        expected = ranked.items[row][ranked.items[row] != PADDING]
        got = wide.items[row][wide.items[row] != PADDING]
        torch.testing.assert_close(scores[row, got], scores[row, expected], atol=1e-4, rtol=0)
        # A narrow beam may miss the best items, but always returns as many as there are, up to k.
        few = narrow.items[row][narrow.items[row] != PADDING].tolist()
        assert len(set(few)) == len(few) == min(len(expected), narrow.items.shape[1])
        assert set(few) <= set(expected.tolist())


def test_a_beam_keeps_the_prefix_of_an_improbable_item_that_is_boosted() -> None:
    sizes = (8, 8, 8)
    codes = random_codes(3, 300, sizes)
    model, trie = random_model(3, sizes, "hierarchical"), Trie.build(codes)
    batch = CodeLookup.from_codes(codes).batch(Histories.of([[0, 5, 7]]), model.max_items)
    scores = score_items(model, batch, trie)[0]
    worst = int(scores.argmin())
    boosts = torch.zeros(300)
    boosts[worst] = float(scores.max() - scores.min()) + 1.0
    plain = beam_search(model, batch, trie, 5, beam_width=5)
    found = beam_search(model, batch, trie, 5, beam_width=5, boost_N=boosts)
    assert worst not in plain.items[0]
    assert found.items[0, 0] == worst
    torch.testing.assert_close(found.scores[0, 0], scores[worst] + boosts[worst], atol=1e-4, rtol=0)
    assert found.items[0, 1:].tolist() == plain.items[0, :4].tolist()


def test_filters_do_not_rescale_the_probabilities_of_the_items_that_are_left() -> None:
    """Items that may not be recommended are masked after the softmax: they keep their share."""
    codes = random_codes(1, 15, (3, 4, 2))
    model, trie, lookup = random_model(1, (3, 4, 2)), Trie.build(codes), CodeLookup.from_codes(codes)
    batch = lookup.batch(Histories.of([[0, 5, 7]]), model.max_items)
    scores = score_items(model, batch, trie)
    allowed = torch.arange(15) % 3 == 0
    seen = torch.tensor([[0, 3]])
    found = beam_search(model, batch, trie, 15, beam_width=15, excluded_BX=seen, allowed_N=allowed)
    left = found.items[0][found.items[0] != PADDING]
    assert sorted(left.tolist()) == [6, 9, 12]
    torch.testing.assert_close(found.scores[0, :3], scores[0, left], atol=1e-5, rtol=0)
    assert found.scores.exp().sum() < 0.99


def test_the_only_allowed_child_still_costs_its_log_probability_and_an_only_child_costs_nothing() -> None:
    codes = np.array([[0, 3, 1], [1, 0, 0], [1, 2, 1]])  # item 0 is alone under code 0
    model, trie = random_model(2, (2, 4, 2)), Trie.build(codes)
    batch = CodeLookup.from_codes(codes).batch(Histories.of([[1]]), model.max_items)
    context = model.encode(batch)
    first = model.next_logits(context, torch.zeros(1, 1, 0, dtype=torch.long))[0, 0].log_softmax(-1)
    second = model.next_logits(context, torch.tensor([[[1]]]))[0, 0, [0, 2]].log_softmax(-1)
    for allowed in (None, torch.tensor([True, True, False])):
        found = beam_search(model, batch, trie, 3, beam_width=3, allowed_N=allowed)
        scores = dict(zip(found.items[0].tolist(), found.scores[0].tolist(), strict=True))
        assert scores[0] == pytest.approx(first[0].item(), abs=1e-5)
        assert scores[1] == pytest.approx((first[1] + second[0]).item(), abs=1e-5)


@architectures
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_of_one_is_greedy(seed: int, name: str) -> None:
    codes = random_codes(seed, 40, (6, 6, 6))
    model = random_model(seed, (6, 6, 6), name)
    batch = CodeLookup.from_codes(codes).batch(Histories(random_histories(seed, 40, 3, 5)), model.max_items)
    found = beam_search(model, batch, Trie.build(codes), 1, beam_width=1)
    context = model.encode(batch)
    for row in range(3):
        prefix: list[int] = []
        for level in range(3):
            log_probs = model.next_logits(context, torch.tensor([[prefix]] * 3).long().view(3, 1, level))[
                row, 0
            ]
            legal = {int(c[level]) for c in codes if list(c[:level]) == prefix}
            prefix.append(max(legal, key=lambda code: log_probs[code].item()))
        assert codes[found.items[row, 0]].tolist() == prefix


def assert_batch_equals_single(
    model: Any, lookup: CodeLookup, trie: Trie, items_BT: np.ndarray, rtol: float = 0.0
) -> None:
    """Beam search gives each history of a batch what it gives that history alone."""
    together = beam_search(model, lookup.batch(Histories(items_BT), 6), trie, 5, beam_width=8)
    for row, history in enumerate(items_BT):
        alone = lookup.batch(Histories.of([history[history != PADDING]]), 6)
        single = beam_search(model, alone, trie, 5, beam_width=8)
        assert single.items[0].tolist() == together.items[row].tolist()
        torch.testing.assert_close(single.scores[0], together.scores[row], atol=1e-5, rtol=rtol)


@architectures
def test_each_user_of_a_batch_gets_the_same_as_alone(name: str) -> None:
    codes = random_codes(3, 50, (5, 5, 5))
    model, trie, lookup = random_model(3, (5, 5, 5), name), Trie.build(codes), CodeLookup.from_codes(codes)
    assert_batch_equals_single(model, lookup, trie, random_histories(3, 50, 7, 9))


@architectures
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 8))
def test_users_get_the_same_whatever_the_batch_size(name: str, seed: int, size: int) -> None:
    codes = random_codes(seed, 50, (5, 5, 5))
    model = random_model(seed, (5, 5, 5), name, user_buckets=3, time_gaps=4)
    trie, lookup, everyone = Trie.build(codes), CodeLookup.from_codes(codes), random_histories(seed, 50, 8, 9)
    full = with_times_and_users(everyone)
    first = Histories(everyone[:size], full.times_BT[:size], full.user_ids[:size])
    whole, part = (
        beam_search(model, lookup.batch(histories, 6), trie, 5, beam_width=8) for histories in (full, first)
    )
    assert part.items.tolist() == whole.items[:size].tolist()
    torch.testing.assert_close(part.scores, whole.scores[:size], atol=1e-5, rtol=1e-5)


def test_fewer_allowed_items_than_k_are_padded() -> None:
    codes = random_codes(4, 5, (3, 3))
    model, trie, lookup = random_model(4, (3, 3)), Trie.build(codes), CodeLookup.from_codes(codes)
    items = np.array([[0, 1, 2, 2, 1]])
    found = beam_search(
        model, lookup.batch(Histories(items), 6), trie, 8, beam_width=8, excluded_BX=torch.from_numpy(items)
    )
    assert sorted(found.items[0, :2].tolist()) == [3, 4]
    assert found.items[0, 2:].tolist() == [PADDING] * 6
    assert found.scores[0, 2:].isneginf().all()


def test_excluded_items_never_use_up_a_narrow_beam() -> None:
    """If all items of the likeliest branch are excluded, the beam does not enter it."""
    codes = np.array([[0, i] for i in range(8)] + [[1, 0], [2, 0]])
    model, trie, lookup = random_model(5, (3, 8)), Trie.build(codes), CodeLookup.from_codes(codes)
    with torch.no_grad():
        model.bias[0] += 50.0  # nearly all mass on first code 0
    seen = np.arange(8)[None]
    found = beam_search(
        model, lookup.batch(Histories(seen), 6), trie, 2, beam_width=2, excluded_BX=torch.from_numpy(seen)
    )
    assert sorted(found.items[0].tolist()) == [8, 9]


@architectures
def test_ties_go_to_the_lower_item_index(name: str) -> None:
    codes = random_codes(6, 64, (4, 4, 4))  # every tuple, in random order
    model = random_model(6, (4, 4, 4), name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # every item has the same probability
    batch = CodeLookup.from_codes(codes).batch(Histories.of([[3, 4]]), 6)
    for width in (1, 5, 64):
        found = beam_search(model, batch, Trie.build(codes), min(5, width), beam_width=width)
        assert found.items[0, 0] == 0
    assert found.items[0].tolist() == [0, 1, 2, 3, 4]


def test_order_keys_sort_by_score_then_tie() -> None:
    scores = torch.tensor([0.0, -0.0, -1.5, -torch.inf, 2.0, -1.5, 1e-30, -1e-30])
    ties = torch.tensor([5, 4, 9, 1, 2, 3, 7, 8])
    order = order_keys(scores, ties).argsort(descending=True).tolist()
    assert order == sorted(range(8), key=lambda i: (-scores[i].item(), ties[i].item()))


def test_a_beam_narrower_than_k_is_refused() -> None:
    codes = random_codes(0, 5, (3, 3))
    model = random_model(0, (3, 3))
    batch = Batch(torch.zeros(1, 0, 2, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match="k is 10 and beam_width is 5"):
        beam_search(model, batch, Trie.build(codes), 10, beam_width=5)


@architectures
def test_one_item_and_items_that_share_all_but_the_last_code(name: str) -> None:
    for codes in (np.array([[2, 1, 0]]), np.array([[1, 1, i] for i in range(9)])):
        model = random_model(7, (3, 3, 9), name)
        batch = CodeLookup.from_codes(codes).batch(Histories.of([[], []]), 6)
        found = beam_search(model, batch, Trie.build(codes), len(codes), beam_width=len(codes))
        assert sorted(found.items[0].tolist()) == list(range(len(codes)))


@pytest.mark.slow
@architectures
def test_a_catalogue_of_100_000_items(name: str) -> None:
    """Uneven codes, seen items among the likeliest: found items have their exact scores."""
    rng = np.random.default_rng(8)
    codes = np.unique((64 * rng.random((130_000, 4)) ** 2).astype(int), axis=0)[:100_000]
    rng.shuffle(codes)
    assert len(codes) == 100_000
    model, trie, lookup = random_model(8, (64,) * 4, name), Trie.build(codes), CodeLookup.from_codes(codes)
    first = beam_search(model, lookup.batch(Histories.of([[1, 2, 3]]), 6), trie, 50, beam_width=100)
    seen = np.concatenate([[[1, 2, 3]], first.items[:, :20].numpy()], axis=1)
    batch = lookup.batch(Histories.of([[1, 2, 3]]), 6)
    found = beam_search(model, batch, trie, 50, beam_width=100, excluded_BX=torch.from_numpy(seen))
    assert not set(found.items[0].tolist()) & set(seen[0].tolist())
    assert found.items[0].unique().numel() == 50
    assert (found.scores.diff() <= 0).all()
    exact = code_log_probs(model, model.encode(batch), trie, found.items).sum(2)
    torch.testing.assert_close(found.scores, exact, atol=1e-4, rtol=0)
