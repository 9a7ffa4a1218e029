import pytest
import torch
from torch import nn

from rqrec.training.optim import AveragedWeights, adamw, learning_rate_factor


def test_schedules_warm_up_linearly_and_then_decay() -> None:
    for schedule in ("cosine", "inverse_sqrt", "constant"):
        rising = [learning_rate_factor(schedule, step, 100, 4) for step in range(4)]
        assert rising == [0.25, 0.5, 0.75, 1.0]
        falling = [learning_rate_factor(schedule, step, 100, 4) for step in range(4, 100)]
        assert falling == sorted(falling, reverse=True)
    assert learning_rate_factor("cosine", 4, 100, 4) == 1
    assert learning_rate_factor("cosine", 52, 100, 4) == pytest.approx(0.55)
    assert learning_rate_factor("cosine", 100, 100, 4) == pytest.approx(0.1)
    assert learning_rate_factor("inverse_sqrt", 64, 100, 4) == 0.25
    assert learning_rate_factor("constant", 99, 100, 4) == 1


def test_the_decay_follows_the_time_if_it_is_ahead_of_the_steps() -> None:
    assert learning_rate_factor("cosine", 10, 1000, 0, spent=0.5) == learning_rate_factor(
        "cosine", 500, 1000, 0
    )
    assert learning_rate_factor("cosine", 600, 1000, 0, spent=0.5) == learning_rate_factor(
        "cosine", 600, 1000, 0
    )
    assert learning_rate_factor("cosine", 10, 1000, 0, spent=3.0) == pytest.approx(0.1)


def test_only_matrices_have_weight_decay() -> None:
    groups = adamw(nn.Linear(3, 2), 0.1, 0.5).param_groups
    assert [(len(g["params"]), g["params"][0].dim(), g["weight_decay"]) for g in groups] == [
        (1, 2, 0.5),
        (1, 1, 0.0),
    ]


def test_averaged_weights_lag_behind_and_can_be_swapped_in() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = AveragedWeights(model, 0.5)
    nn.init.ones_(model.weight)
    average.update(1000)
    with average.in_place():
        assert model.weight.item() == 0.5
    assert model.weight.item() == 1
    average.update(0)  # early on the decay is smaller: 0.1
    average.apply()
    assert model.weight.item() == pytest.approx(0.95)
    assert not torch.equal(average.shadow[0], torch.zeros(1, 1))
