"""Models are made with the tensors of a file, and with nothing else."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from rqrec.core.tensors import model_with
from rqrec.models.architectures import ARCHITECTURES
from rqrec.models.sasrec import SasRec, SasRecConfig
from rqrec.tokenizer.rqkmeans import RqKMeans, RqKMeansConfig
from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig

BUILD: dict[str, Callable[[], nn.Module]] = {
    **{
        name: partial(entry.model, entry.config((4, 4), 5, 12, 16, 2, 1, 0.3, user_buckets=9, time_gaps=5))
        for name, entry in ARCHITECTURES.items()
    },
    "sasrec": lambda: SasRec(SasRecConfig(20, 4)),
    "rqvae": lambda: RqVae(RqVaeConfig(input_dim=4, embed_dim=4, hidden_dims=(4,), codebook_size=4)),
    "rqvae with moving averages": lambda: RqVae(
        RqVaeConfig(input_dim=4, embed_dim=4, hidden_dims=(4,), codebook_size=4, ema_decay=0.9)
    ),
    "rqkmeans": lambda: RqKMeans(RqKMeansConfig(input_dim=4, codebook_size=4)),
}


@pytest.mark.parametrize("build", BUILD.values(), ids=BUILD)
def test_a_model_made_with_tensors_has_all_of_them_and_draws_no_random_numbers(
    build: Callable[[], nn.Module],
) -> None:
    original = build()
    state = torch.get_rng_state()
    given = original.state_dict()
    made = model_with(build, given, "a test")
    assert torch.equal(torch.get_rng_state(), state)
    assert not made.training
    for tensors in (nn.Module.named_parameters, nn.Module.named_buffers):
        expected, found = dict(tensors(original)), dict(tensors(made))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    # Later changes of the tensors, which may be a view of a file, do not reach the model.
    assert not {one.data_ptr() for one in given.values()} & {
        one.data_ptr() for one in made.state_dict().values()
    }
