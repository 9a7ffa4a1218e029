import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rqrec.models import feed_forward
from rqrec.models.feed_forward import FeedForward
from rqrec.models.layers import Transformer
from tests.sizes import largest_tensor, saved_bytes

WIDTH, HIDDEN = 6, 24


def output_and_gradients(layer: nn.Sequential, x: Tensor, *, blockwise: bool) -> list[Tensor]:
    out = layer(x) if blockwise else nn.Sequential.forward(layer, x)
    return [out, *torch.autograd.grad((out * torch.arange(WIDTH)).sum(), [x, *layer.parameters()])]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5), st.integers(1, 400))
def test_output_and_gradients_equal_those_of_the_plain_layers(
    seed: int, batch: int, positions: int, block: int
) -> None:
    torch.manual_seed(seed)
    layer = FeedForward(WIDTH, HIDDEN)
    # A view with gaps, as the states of some positions are.
    x = torch.randn(batch, positions + 1, WIDTH, requires_grad=True)[:, 1:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed_forward, "BLOCK", block)
        found = output_and_gradients(layer, x, blockwise=True)
    for ours, theirs in zip(found, output_and_gradients(layer, x, blockwise=False), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_no_positions_have_no_output_and_no_gradient() -> None:
    layer, x = FeedForward(WIDTH, HIDDEN), torch.zeros(0, WIDTH, requires_grad=True)
    out, *gradients = output_and_gradients(layer, x, blockwise=True)
    assert out.shape == (0, WIDTH)
    assert not any(gradient.any() for gradient in gradients)


def test_hidden_units_are_computed_in_blocks_and_never_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_forward, "BLOCK", 10 * HIDDEN)
    layer, x = FeedForward(WIDTH, HIDDEN), torch.randn(1000, WIDTH, requires_grad=True)
    assert saved_bytes(lambda: layer(x)) == 4 * (x.numel() + WIDTH * HIDDEN * 2 + HIDDEN)
    assert largest_tensor(lambda: layer(x).sum().backward()) == x.numel()


def test_mixed_precision_is_that_of_the_plain_layers() -> None:
    layer, x = FeedForward(WIDTH, HIDDEN), torch.randn(3, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_a_transformer_saves_a_bounded_number_of_bytes_for_each_element() -> None:
    """In each block nine tensors as wide as the model; it would be seventeen with the hidden units."""
    width, positions = 32, 4096
    transformer = Transformer(width, heads=2, layers=2, dropout=0.1)
    x_BSD = torch.randn(positions // 16, 16, width, requires_grad=True)
    weights = sum(4 * parameter.numel() for parameter in transformer.parameters())
    saved = saved_bytes(lambda: transformer.causal(x_BSD)) - weights
    assert saved / (positions * width * 4 * 2) < 10
