"""The softmax over the children that exist, in the training of every architecture."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from rqrec.data.sequences import Histories
from rqrec.models.architectures import ARCHITECTURES, AnyModel, architecture, build_model
from rqrec.models.retrieval_model import Batch, CodeLookup
from rqrec.models.trie_softmax import TrainingLoss, choices_of, log_probs_of_children
from rqrec.retrieval.scoring import score_items
from rqrec.tokenizer.semantic_ids import deduplicate
from rqrec.tokenizer.trie import Trie

SIZES = (4, 5, 6)
architectures = pytest.mark.parametrize("name", ARCHITECTURES)
# Item 0 is alone under code 0, and below code 1 there are two children, one of them with two items.
UNEVEN = np.array([[0, 3, 1], [1, 0, 0], [1, 2, 1], [1, 2, 4], [2, 0, 0], [2, 1, 0]])


def random_codes(seed: int, n_items: int, *, deduplicated: bool) -> np.ndarray:
    """Unique codes in random order; with `deduplicated`, the last level only tells apart items with equal codes."""
    rng = np.random.default_rng(seed)
    if deduplicated:
        content = rng.integers(0, SIZES[:2], (n_items, 2))
        return np.column_stack([content, deduplicate(content)])
    return rng.permutation(np.unique(rng.integers(0, SIZES, (n_items, 3)), axis=0))


def model_for(name: str, codes: np.ndarray, seed: int = 0, **options: Any) -> AnyModel:
    torch.manual_seed(seed)
    sizes = (*SIZES[:2], max(SIZES[2], int(codes[:, 2].max()) + 1))
    options = {"attn_dropout": 0.0, **options}
    model = build_model(architecture(name).config(sizes, 6, 12, 16, 2, 2, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # far from uniform, so that wrong probabilities show
    return model


def batch_of(codes: np.ndarray, histories: list[list[int]]) -> Batch:
    return CodeLookup.from_codes(codes).batch(Histories.of(histories), 7)


def bias_of(model: AnyModel, level: int) -> torch.nn.Parameter:
    """The bias of a level's logits."""
    if not model.config.tie_codes:
        return model.heads[level].bias
    start = sum(model.level_sizes[:level])
    return model.bias[start : start + model.level_sizes[level]]


def test_log_probabilities_are_those_of_a_softmax_over_the_listed_children() -> None:
    trie = Trie.build(UNEVEN)
    logits = torch.randn(3, 5, requires_grad=True)
    children = trie.children(1, torch.tensor([0, 1, 2]))
    log_probs = log_probs_of_children(logits, children.codes, children.exists)
    assert log_probs.dtype == torch.float32
    for row, codes in enumerate(([3], [0, 2], [0, 1])):
        torch.testing.assert_close(log_probs[row, : len(codes)], logits[row, codes].log_softmax(0))
        assert log_probs[row, len(codes) :].isneginf().all()
    assert log_probs[0, 0] == 0
    log_probs[children.exists].sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[1, [1, 3, 4]].tolist() == [0, 0, 0]


def test_only_targets_with_a_choice_are_listed() -> None:
    first, second, third = choices_of(torch.tensor([0, 3, 5, 0]), Trie.build(UNEVEN))
    assert first.rows_R.tolist() == [0, 1, 2, 3]
    assert first.target_R.tolist() == [0, 1, 2, 0]
    assert second.rows_R.tolist() == [1, 2]
    assert second.children.codes.tolist() == [[0, 2], [0, 1]]
    assert second.target_R.tolist() == [1, 1]
    assert third.rows_R.tolist() == [1]
    assert third.children.codes.tolist() == [[1, 4]]


def test_label_smoothing_equals_torchs_where_every_code_exists() -> None:
    every = np.array(list(np.ndindex(*SIZES)))
    items = torch.arange(7) * 11
    choices, logits = choices_of(items, Trie.build(every)), [torch.randn(7, size) for size in SIZES]
    loss = TrainingLoss.from_logits(logits, choices, 7, smoothing=0.2)
    targets = torch.from_numpy(every)[items]
    expected = [
        functional.cross_entropy(part, targets[:, level], label_smoothing=0.2)
        for level, part in enumerate(logits)
    ]
    assert loss.total.item() == pytest.approx(np.mean(expected), abs=1e-6)
    assert torch.equal(loss.by_level_L, TrainingLoss.from_logits(logits, choices, 7).by_level_L)


def test_label_smoothing_spreads_over_the_existing_children_only() -> None:
    """Worked by hand: two targets, the first of which has one choice of three, and then none."""
    trie = Trie.build(np.array([[0, 0], [1, 0], [3, 0], [3, 1]]))
    choices = choices_of(torch.tensor([1, 3]), trie)
    logits = [torch.tensor([[0.0, 1.0, 9.0, 2.0], [0.0, 0.0, 9.0, 0.0]]), torch.tensor([[1.0, 0.0]])]
    loss = TrainingLoss.from_logits(logits, choices, 2, smoothing=0.3)
    one, two = np.log(1 + np.e + np.e**2), np.log(1 + np.e)
    first = (0.7 * (one - 1) + 0.3 * (one - 1) + np.log(3)) / 2
    second = (0.7 * two + 0.3 * (two - 0.5)) / 2
    assert loss.total.item() == pytest.approx((first + second) / 2, abs=1e-6)
    assert loss.by_level_L.tolist() == pytest.approx([(one - 1 + np.log(3)) / 2, two / 2], abs=1e-6)


@architectures
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), n_items=st.integers(1, 60), deduplicated=st.booleans())
def test_the_loss_is_the_mean_negative_log_probability_of_the_targets(
    name: str, seed: int, n_items: int, deduplicated: bool
) -> None:
    """As exhaustive scoring gives it, divided by the number of levels."""
    codes = random_codes(seed, n_items, deduplicated=deduplicated)
    model, trie = model_for(name, codes, seed).eval(), Trie.build(codes)
    rng = np.random.default_rng(seed)
    histories = [rng.integers(0, len(codes), rng.integers(1, 8)).tolist() for _ in range(3)]
    log_probs = []
    for history in histories:
        for length in range(len(history)) if not model.learns_last_item_only else [len(history) - 1]:
            scores = score_items(model, batch_of(codes, [history[:length]]), trie)
            log_probs.append(scores[0, history[length]].item())
    loss = model(batch_of(codes, histories), trie)
    assert loss.total.item() == pytest.approx(-np.mean(log_probs) / 3, abs=1e-4)
    assert loss.total.item() == pytest.approx(loss.by_level_L.mean().item(), abs=1e-6)


@architectures
@pytest.mark.parametrize("tied", [False, True])
def test_the_loss_does_not_depend_on_the_logits_of_codes_that_are_no_children(name: str, tied: bool) -> None:
    model, trie = model_for(name, UNEVEN, tie_codes=tied, label_smoothing=0.1).train(), Trie.build(UNEVEN)
    batch = batch_of(UNEVEN, [[0, 3], [2, 5, 4]])
    before = model(batch, trie)
    with torch.no_grad():
        bias_of(model, 0)[3] += 50.0  # code 3 of level 0 has no item
        bias_of(model, 1)[[3, 4]] += 50.0  # code 3 is an only child, code 4 is none
        bias_of(model, 2)[5] += 50.0
    after = model(batch, trie)
    assert torch.equal(before.total, after.total)
    with torch.no_grad():
        bias_of(model, 1)[2] += 50.0
    assert model(batch, trie).total != after.total


@architectures
def test_targets_without_a_choice_cost_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No output layer, and in the hierarchical model no decoder, reads them."""
    model, trie = model_for(name, UNEVEN), Trie.build(UNEVEN)
    rows: dict[int, int] = {}
    decoded: list[int] = []
    logits, decode = model._logits, getattr(model, "_decode", None)
    monkeypatch.setattr(
        model, "_logits", lambda state, level: rows.update({level: len(state)}) or logits(state, level)
    )
    if name == "hierarchical":
        monkeypatch.setattr(
            model, "_decode", lambda states, *rest: decoded.append(len(states)) or decode(states, *rest)
        )
    model(batch_of(UNEVEN, [[0], [3], [4], [0]]), trie)
    assert rows == {0: 4, 1: 2, 2: 1}
    if name == "hierarchical":
        assert decoded == [7]


@architectures
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("codes", [np.array([[1, 2, 3]]), np.array([[0, 0, 0], [1, 0, 0], [2, 4, 1]])])
def test_levels_without_a_choice_leave_no_parameter_without_a_gradient(
    name: str, tied: bool, codes: np.ndarray
) -> None:
    """A gradient of zero, not none: processes reduce all gradients together."""
    model, trie = model_for(name, codes, tie_codes=tied, label_smoothing=0.1).train(), Trie.build(codes)
    loss = model(batch_of(codes, [[0] * 7, [len(codes) - 1] * 3]), trie)
    loss.total.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert loss.by_level_L[1:].tolist() == [0, 0]


def test_training_without_item_indices_is_refused() -> None:
    model, trie = model_for("hierarchical", UNEVEN), Trie.build(UNEVEN)
    with pytest.raises(ValueError, match="items_BT"):
        model(batch_of(UNEVEN, [[0, 1]])._replace(items_BT=None), trie)
