import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from rqrec.models import softmax


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 9), st.integers(1, 60))
def test_loss_and_gradients_equal_torchs(seed: int, targets: int, items: int, block: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    states = (3 * torch.randn(targets, 4, generator=generator)).requires_grad_()
    table = torch.randn(items, 4, generator=generator, requires_grad=True)
    labels = torch.randint(items, (targets,), generator=generator)
    expected = functional.cross_entropy(states @ table.T, labels)
    gradients = torch.autograd.grad(2 * expected, (states, table))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax, "BLOCK", block)
        found = softmax.catalogue_cross_entropy(states, table, labels)
        torch.testing.assert_close(found, expected)
        for ours, theirs in zip(torch.autograd.grad(2 * found, (states, table)), gradients, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_large_logits_neither_overflow_nor_vanish() -> None:
    states, table = torch.tensor([[1e4]], requires_grad=True), torch.tensor([[1.0], [0.5]])
    loss = softmax.catalogue_cross_entropy(states, table, torch.tensor([1]))
    assert loss.item() == pytest.approx(5e3)


def test_autocast_does_not_change_it() -> None:
    states, table, labels = torch.randn(8, 4), torch.randn(5, 4), torch.arange(8) % 5
    with torch.autocast("cpu", torch.bfloat16):
        mixed = softmax.catalogue_cross_entropy(states, table, labels)
    assert mixed == softmax.catalogue_cross_entropy(states, table, labels)
