"""The shared layers of the models, each by itself."""

import torch

from rqrec.models.kv_cache import beams_mask
from rqrec.models.layers import Attention, Dropout, RelativeBias, Transformer


def test_near_positions_have_their_own_bucket_and_far_ones_share_one_by_order_of_magnitude() -> None:
    near = RelativeBias.bucket(torch.arange(-7, 8))
    assert near.tolist() == [7, 6, 5, 4, 3, 2, 1, 0, 17, 18, 19, 20, 21, 22, 23]
    far = RelativeBias.bucket(-torch.arange(8, 1000))
    assert (far.diff() >= 0).all()
    assert far.unique().tolist() == list(range(8, 16))
    assert far[128 - 8 :].unique().tolist() == [15]


def test_a_bias_depends_only_on_the_signed_distance() -> None:
    bias_HSS = RelativeBias(heads=3)(20)
    assert bias_HSS.shape == (3, 20, 20)
    assert torch.equal(bias_HSS[:, 2:12, 4:14], bias_HSS[:, 8:18, 10:20])
    assert not torch.equal(bias_HSS[:, 0, 3], bias_HSS[:, 3, 0])


def test_the_state_of_one_position_equals_that_of_a_full_causal_pass() -> None:
    torch.manual_seed(0)
    transformer, x_BSD = Transformer(12, 3, layers=2, dropout=0.0), torch.randn(4, 5, 12)
    positions = torch.tensor([4, 0, 2, 3])
    states, past = transformer.causal(x_BSD)
    state, past_of_one = transformer.last_state(x_BSD, positions)
    torch.testing.assert_close(state, states[torch.arange(4), positions])
    torch.testing.assert_close(past_of_one, past)


def test_beams_that_share_one_cache_equal_beams_read_alone() -> None:
    torch.manual_seed(0)
    attention, history_BSD, beams_BKlD = Attention(12, 3), torch.randn(2, 5, 12), torch.randn(2, 4, 3, 12)
    lengths = torch.tensor([5, 3])
    _, past = attention.causal(history_BSD)
    mask = beams_mask(torch.arange(5) < lengths[:, None], n_beams=4, length=3)
    found = attention.decode_step(beams_BKlD.flatten(1, 2), past, mask).unflatten(1, (4, 3))
    for row, length in enumerate(lengths.tolist()):
        for beam in range(4):
            alone = torch.cat([history_BSD[row, :length], beams_BKlD[row, beam]])[None]
            torch.testing.assert_close(found[row, beam], attention.causal(alone)[0][0, length:])


def test_dropout_zeroes_its_fraction_keeps_the_mean_and_does_nothing_in_evaluation() -> None:
    torch.manual_seed(0)
    dropout, x = Dropout(0.2), torch.ones(999, 1001, requires_grad=True)
    dropped = dropout(x)
    assert abs((dropped == 0).float().mean().item() - 0.2) < 0.002
    assert abs(dropped.mean().item() - 1) < 0.003
    assert dropped.unique().numel() == 2  # zero, or the element scaled up
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert torch.equal(gradient, dropped)
    assert not torch.equal(dropout(x), dropped)
    torch.manual_seed(0)
    assert torch.equal(dropout(x), dropped)
    neighbours = (dropped[:, 1:] == 0) & (dropped[:, :-1] == 0)
    assert (
        abs(neighbours.float().mean().item() - 0.04) < 0.002
    )  # neighbouring elements are drawn independently
    assert dropout.eval()(x) is x
