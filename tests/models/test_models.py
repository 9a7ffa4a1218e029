"""The contract of every architecture; a new one is tested by its entry in ARCHITECTURES."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
from rqrec.models.architectures import ARCHITECTURES, AnyModel, architecture, build_model
from rqrec.models.decoder_only import DecoderOnly
from rqrec.models.hierarchical import Hierarchical
from rqrec.models.item_input import ItemContent
from rqrec.models.retrieval_model import Batch, CodeLookup, ModelConfig
from rqrec.models.side_information import user_number
from rqrec.retrieval.beam_search import beam_search
from rqrec.retrieval.scoring import score_items
from rqrec.tokenizer.trie import Trie

SIZES = (4, 3, 5)
TRIE = Trie.build(np.array(list(itertools.product(*map(range, SIZES)))))  # every tuple is an item


def maker(name: str, **options: Any) -> Callable:
    def make(dropout: float = 0.0, label_smoothing: float = 0.0) -> AnyModel:
        torch.manual_seed(0)
        config = architecture(name).config(SIZES, 6, 12, 16, 2, 2, dropout, label_smoothing, **options)
        model = build_model(config)
        if model.item_input.content is not None:
            model.item_input.content.set(np.random.default_rng(0).normal(size=(60, 7)))
        return model

    return make


def all_options(name: str) -> dict[str, Any]:
    """The options that are off by default, switched on."""
    return {
        "user_buckets": 5,
        "time_gaps": 4,
        "tie_codes": not architecture(name).config.tie_codes,
        "input_scale": 2.0,
        "item_embed_dim": 5,
        "content_dim": 7,
        "n_items": 60,  # as many as there are tuples
    }


def each(names: Iterable[str]) -> pytest.MarkDecorator:
    """The architectures with their defaults, and with every option."""
    makers = {name: maker(name) for name in names}
    makers |= {f"{name} with options": maker(name, **all_options(name)) for name in names}
    return pytest.mark.parametrize("make", makers.values(), ids=makers)


CAUSAL = ["decoder_only", "hierarchical"]  # every item of a sequence is a target at once
architectures, causal_ones = each(ARCHITECTURES), each(CAUSAL)
plain_architectures = pytest.mark.parametrize("make", [*map(maker, ARCHITECTURES)], ids=ARCHITECTURES)


def random_batch(n_batch: int = 5, n_items: int = 6, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.stack([torch.randint(size, (n_batch, n_items), generator=generator) for size in SIZES], -1)
    lengths = torch.randint(1, n_items + 1, (n_batch,), generator=generator)
    lengths[0] = n_items
    inside = torch.arange(n_items) < lengths[:, None]
    gaps = torch.tensor([5, 3600, 10**6, 10**8])[torch.randint(4, (n_batch, n_items), generator=generator)]
    users = torch.randint(2**62, (n_batch,), generator=generator)
    items = items_of(codes).masked_fill(~inside, PADDING)
    return Batch(codes * inside[:, :, None], lengths, gaps.cumsum(1) * inside, users, items)


def row_of(batch: Batch, row: int, n_items: int) -> Batch:
    """The first items of one history."""
    rows = slice(row, row + 1)
    return Batch(
        batch.codes_BTL[rows, :n_items],
        torch.tensor([n_items]),
        None if batch.times_BT is None else batch.times_BT[rows, :n_items],
        None if batch.users_B is None else batch.users_B[rows],
        batch.items_BT[rows, :n_items],
    )


def all_codes() -> torch.Tensor:
    return torch.cartesian_prod(*map(torch.arange, SIZES))


def items_of(codes: torch.Tensor) -> torch.Tensor:
    """The rows of these tuples in `all_codes`."""
    return (codes * torch.tensor([SIZES[1] * SIZES[2], SIZES[2], 1])).sum(-1)


@architectures
def test_each_prefix_has_a_logit_for_every_code_of_the_next_level(make: Callable) -> None:
    model, batch = make().eval(), random_batch()
    context = model.encode(batch)
    for level, size in enumerate(SIZES):
        logits = model.next_logits(context, all_codes()[None, :7, :level].expand(5, -1, -1))
        assert logits.shape == (5, 7, size)
        assert logits.isfinite().all()


@architectures
def test_padded_equals_unpadded(make: Callable) -> None:
    model, batch = make().eval(), random_batch()
    together = score_items(model, batch, TRIE)
    for row, length in enumerate(batch.lengths_B.tolist()):
        alone = score_items(model, row_of(batch, row, length), TRIE)[0]
        torch.testing.assert_close(alone, together[row], atol=1e-5, rtol=0)


@architectures
def test_the_content_of_padding_changes_nothing(make: Callable) -> None:
    model, batch = make().eval(), random_batch()
    padding = torch.arange(6) >= batch.lengths_B[:, None]
    codes, times = batch.codes_BTL.clone(), batch.times_BT.clone()
    codes[padding], times[padding] = torch.tensor([3, 2, 4]), 10**9
    items = batch.items_BT.masked_fill(padding, 7)
    other = batch._replace(codes_BTL=codes, times_BT=times, items_BT=items)
    torch.testing.assert_close(score_items(model, batch, TRIE), score_items(model, other, TRIE))
    assert model(batch, TRIE).total == model(other, TRIE).total


@architectures
def test_cached_equals_uncached(make: Callable) -> None:
    """encode and next_logits give an item the same probability as one pass over the history and the item."""
    model, batch = make().eval(), random_batch(n_items=7)
    for row, length in enumerate(batch.lengths_B.tolist()):
        for n_history in range(length):
            whole, history = row_of(batch, row, n_history + 1), row_of(batch, row, n_history)
            uncached = model(whole, TRIE).by_level_L
            if isinstance(model, DecoderOnly | Hierarchical):
                # Theirs is the mean over all items: subtract what the earlier ones add to it.
                before = model(history, TRIE).by_level_L * n_history if n_history else 0
                uncached = uncached * (n_history + 1) - before
            context, item_L = model.encode(history), whole.codes_BTL[0, -1]
            # Among other beams, so that a leak between them would show.
            beams_BKL = torch.stack([item_L, (item_L + 1) % torch.tensor(SIZES), item_L])[None]
            for level in range(3):
                log_probs_BKV = model.next_logits(context, beams_BKL[:, :, :level]).log_softmax(-1)
                cached = log_probs_BKV[0, [0, 2], item_L[level]]
                torch.testing.assert_close(-cached, uncached[level].expand(2), atol=1e-5, rtol=0)


@causal_ones
def test_the_loss_is_the_mean_cross_entropy_of_decoding(make: Callable) -> None:
    """Teacher forcing and generation agree: every item is a target, given those before it."""
    model, batch = make().eval(), random_batch()
    by_level = [[] for _ in SIZES]
    for row, length in enumerate(batch.lengths_B.tolist()):
        for item in range(length):
            context = model.encode(row_of(batch, row, item))
            codes = batch.codes_BTL[row, item]
            for level in range(len(SIZES)):
                log_probs = model.next_logits(context, codes[None, None, :level])[0, 0].log_softmax(-1)
                by_level[level].append(-log_probs[codes[level]].item())
    loss = model(batch, TRIE)
    expected = [np.mean(losses) for losses in by_level]
    np.testing.assert_allclose(loss.by_level_L.numpy(), expected, atol=1e-5)
    assert loss.total.item() == pytest.approx(np.mean(expected), abs=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_of_the_encoder_decoder_is_that_of_the_last_items(training: bool) -> None:
    model, batch = maker("encoder_decoder")().train(training), random_batch()
    losses = []
    for row, length in enumerate(batch.lengths_B.tolist()):
        scores = score_items(model, row_of(batch, row, length - 1), TRIE)[0]
        column = (all_codes() == batch.codes_BTL[row, length - 1]).all(1).nonzero().item()
        losses.append(-scores[column].item() / len(SIZES))
    assert model(batch, TRIE).total.item() == pytest.approx(np.mean(losses), abs=1e-5)


@architectures
def test_the_future_does_not_leak_into_the_past(make: Callable) -> None:
    model, batch = make().eval(), random_batch(n_batch=1)
    changed = batch.codes_BTL.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % torch.tensor(SIZES)
    later = Batch(changed, torch.tensor([4]), batch.times_BT**2, batch.users_B, items_of(changed))
    later.times_BT[:, :4] = batch.times_BT[:, :4]
    short = row_of(batch, 0, 4)
    assert model(later, TRIE).total.item() == pytest.approx(model(short, TRIE).total.item(), abs=1e-6)
    torch.testing.assert_close(score_items(model, later, TRIE), score_items(model, short, TRIE))


@architectures
def test_the_time_of_an_item_does_not_change_its_own_probability(make: Callable) -> None:
    """The time of the next interaction is not known while its item is generated."""
    model, batch = make().eval(), random_batch(n_batch=1)
    later = batch._replace(times_BT=batch.times_BT.clone())
    later.times_BT[:, -1] += 10**7
    assert model(batch, TRIE).total == model(later, TRIE).total


@architectures
def test_every_parameter_gets_a_gradient(make: Callable) -> None:
    model = make().train()
    model(random_batch(n_items=model.max_items + 1), TRIE).total.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@causal_ones
def test_every_position_gets_a_gradient(make: Callable) -> None:
    """The item after a full history is a target in training too."""
    model = make().train()
    model(random_batch(n_items=model.max_items + 1), TRIE).total.backward()
    assert model.item_position.weight.grad.any(dim=1).all()


@plain_architectures
def test_it_overfits_one_batch(make: Callable) -> None:
    model = make().train()
    codes = random_batch().codes_BTL.clone()
    codes[:, 0] = all_codes()[torch.arange(5) * 12]  # five different first items make the histories distinct
    # Copies, since the encoder-decoder draws one target from each sequence at a step.
    batch = Batch(codes.repeat(8, 1, 1), torch.full((40,), 6), items_BT=items_of(codes).repeat(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        loss = model(batch, TRIE)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    # Only the choice among the five first items cannot be learned.
    context = model.eval().encode(Batch(codes[:, :5], torch.full((5,), 5)))
    for level in range(3):
        log_probs = model.next_logits(context, codes[:, 5:6, :level])[:, 0].log_softmax(-1)
        assert log_probs.gather(1, codes[:, 5, level, None]).min() > -0.05


@plain_architectures
def test_dropout_is_used_only_in_training(make: Callable) -> None:
    model, batch = make(0.5), random_batch()
    assert model.train()(batch, TRIE).total != model(batch, TRIE).total
    model.eval()
    assert torch.equal(score_items(model, batch, TRIE), score_items(model, batch, TRIE))


@plain_architectures
def test_label_smoothing_is_used_only_in_training(make: Callable) -> None:
    plain, smooth, batch = make(), make(label_smoothing=0.3), random_batch()
    assert smooth.eval()(batch, TRIE).total == plain.eval()(batch, TRIE).total
    torch.manual_seed(1)
    loss = smooth.train()(batch, TRIE)
    assert loss.total != loss.by_level_L.mean()


@architectures
def test_an_empty_history_gets_recommendations(make: Callable) -> None:
    codes = all_codes().numpy()
    batch = CodeLookup.from_codes(codes).batch(Histories.of([[], []], times=[[], []]), 6)
    found = beam_search(make().eval(), batch, Trie.build(codes), 5, beam_width=5)
    assert (found.items >= 0).all()
    assert found.items[0].tolist() == found.items[1].tolist()


def test_only_the_most_recent_items_of_a_long_history_are_read() -> None:
    codes = all_codes().numpy()
    histories = Histories.of([[1, 2, 3, 4, 5], [7]], [[10, 20, 30, 40, 50], [70]], ["ann", None])
    batch = CodeLookup.from_codes(codes).batch(histories, 3)
    assert batch.times_BT.tolist() == [[30, 40, 50], [70, 0, 0]]
    assert batch.users_B.tolist() == [user_number("ann"), PADDING]
    assert batch.codes_BTL[0].tolist() == codes[[3, 4, 5]].tolist()
    assert batch.codes_BTL[1].tolist() == [codes[7].tolist(), [0, 0, 0], [0, 0, 0]]
    assert batch.lengths_B.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level_sizes": ()}, "level_sizes"),
        ({"level_sizes": (4, 0)}, "level_sizes"),
        ({"attn_heads": 3}, "not a multiple of attn_heads 3"),
        ({"max_items": 0}, "max_items is 0"),
        ({"attn_dropout": 1.0}, "attn_dropout is 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
        ({"user_buckets": -1}, "user_buckets is -1"),
        ({"time_gaps": -1}, "time_gaps is -1"),
        ({"input_scale": 0.0}, "input_scale is 0"),
        ({"content_dim": 3}, "content_dim is 3, but n_items is 0"),
        ({"item_embed_dim": 3}, "item_embed_dim is 3 and .* but n_items is 0"),
    ],
)
def test_values_out_of_range_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**{"level_sizes": SIZES, **change})


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tied_codes_share_one_embedding_between_input_and_output(name: str, tied: bool) -> None:
    model = maker(name, tie_codes=tied)().eval()
    batch, unread = Batch(all_codes()[None, :1], torch.tensor([1])), 2  # code 2 of level 1 is never input
    with torch.no_grad():
        context = model.encode(batch)
        before = model.next_logits(context, all_codes()[None, :1, :1])
        model.codes.rows(1)[unread] += 3.0
        after = model.next_logits(context, all_codes()[None, :1, :1])
    assert torch.equal(before, after) != tied


@plain_architectures
def test_content_and_vectors_of_items_are_read_from_the_history(make: Callable) -> None:
    plain = make()
    config = replace(plain.config, content_dim=7, item_embed_dim=5, n_items=60)
    batch, prefix = random_batch(), torch.zeros(5, 1, 0, dtype=torch.int64)

    def logits(change: Callable[[Any], None]) -> torch.Tensor:
        torch.manual_seed(0)
        model = build_model(config).eval()
        model.item_input.content.set(np.random.default_rng(0).normal(size=(60, 7)))
        with torch.no_grad():
            change(model.item_input)
        return model.next_logits(model.encode(batch), prefix)

    item = int(batch.items_BT[0, 0])
    elsewhere = [row for row in range(5) if item not in batch.items_BT[row].tolist()]
    before = logits(lambda _: None)
    for change in (
        lambda given: given.content.vectors_NC[item].add_(3),
        lambda given: given.vector.weight[item].add_(3),
    ):
        after = logits(change)
        assert not torch.allclose(before[0], after[0], atol=1e-5)
        assert torch.equal(before[elsewhere], after[elsewhere])


def test_content_is_centred_and_scaled() -> None:
    content = ItemContent(50, 6, 3)
    content.set(np.random.default_rng(0).normal(5, 20, (50, 6)))
    torch.testing.assert_close(content.vectors_NC.float().mean(0), torch.zeros(6), atol=1e-2, rtol=0)
    assert content.vectors_NC.float().std(0).mean() == pytest.approx(1, abs=1e-2)
    with pytest.raises(ValueError, match=r"shape \(49, 6\), but the model has \(50, 6\)"):
        content.set(np.zeros((49, 6)))


def test_a_model_that_reads_items_refuses_codes_alone() -> None:
    model = maker("hierarchical", **all_options("hierarchical"))()
    with pytest.raises(ValueError, match="reads items beside their codes"):
        model.encode(random_batch()._replace(items_BT=None))
