"""Parts of the models by themselves."""

import torch

from rqrec.models.kv_cache import beams_mask
from rqrec.models.layers import Attention, Dropout, RelativeBias, Transformer


def test_relative_buckets_tell_near_places_apart_and_far_ones_by_their_order_of_magnitude() -> None:
    near = RelativeBias.bucket(torch.arange(-7, 8))
    assert near.tolist() == [7, 6, 5, 4, 3, 2, 1, 0, 17, 18, 19, 20, 21, 22, 23]
    far = RelativeBias.bucket(-torch.arange(8, 1000))
    assert (far.diff() >= 0).all()
    assert far.unique().tolist() == list(range(8, 16))
    assert far[128 - 8 :].unique().tolist() == [15]


def test_a_bias_depends_on_the_distance_alone() -> None:
    bias_HSS = RelativeBias(heads=3)(20)
    assert bias_HSS.shape == (3, 20, 20)
    assert torch.equal(bias_HSS[:, 2:12, 4:14], bias_HSS[:, 8:18, 10:20])
    assert not torch.equal(bias_HSS[:, 0, 3], bias_HSS[:, 3, 0])


def test_one_place_of_a_causal_pass_is_that_place_of_the_whole() -> None:
    torch.manual_seed(0)
    transformer, x_BSD = Transformer(12, 3, layers=2, dropout=0.0), torch.randn(4, 5, 12)
    places = torch.tensor([4, 0, 2, 3])
    states, past = transformer.causal(x_BSD)
    state, past_of_one = transformer.last_state(x_BSD, places)
    torch.testing.assert_close(state, states[torch.arange(4), places])
    torch.testing.assert_close(past_of_one, past)


def test_beams_go_on_from_one_cache_as_if_each_were_read_alone() -> None:
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


def test_dropout_zeroes_its_share_keeps_the_mean_and_does_nothing_in_evaluation() -> None:
    torch.manual_seed(0)
    dropout, x = Dropout(0.2), torch.ones(999, 1001, requires_grad=True)
    dropped = dropout(x)
    assert abs((dropped == 0).float().mean().item() - 0.2) < 0.002
    assert abs(dropped.mean().item() - 1) < 0.003
    assert dropped.unique().numel() == 2  # nothing, or the element scaled up
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert torch.equal(gradient, dropped)
    assert not torch.equal(dropout(x), dropped)
    torch.manual_seed(0)
    assert torch.equal(dropout(x), dropped)
    neighbours = (dropped[:, 1:] == 0) & (dropped[:, :-1] == 0)
    assert abs(neighbours.float().mean().item() - 0.04) < 0.002  # they are drawn independently
    assert dropout.eval()(x) is x
