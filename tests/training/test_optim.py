import pytest
import torch
from torch import nn

from rqrec.training.optim import AveragedWeights, adamw, rate


def test_schedules_warm_up_and_then_fall_as_they_say() -> None:
    for schedule in ("cosine", "inverse_sqrt", "constant"):
        rising = [rate(schedule, step, 100, 4) for step in range(4)]
        assert rising == [0.25, 0.5, 0.75, 1.0]
        falling = [rate(schedule, step, 100, 4) for step in range(4, 100)]
        assert falling == sorted(falling, reverse=True)
    assert rate("cosine", 4, 100, 4) == 1
    assert rate("cosine", 52, 100, 4) == pytest.approx(0.55)
    assert rate("cosine", 100, 100, 4) == pytest.approx(0.1)
    assert rate("inverse_sqrt", 64, 100, 4) == 0.25
    assert rate("constant", 99, 100, 4) == 1


def test_the_decay_follows_the_time_where_that_is_ahead_of_the_steps() -> None:
    assert rate("cosine", 10, 1000, 0, spent=0.5) == rate("cosine", 500, 1000, 0)
    assert rate("cosine", 600, 1000, 0, spent=0.5) == rate("cosine", 600, 1000, 0)
    assert rate("cosine", 10, 1000, 0, spent=3.0) == pytest.approx(0.1)


def test_only_matrices_decay() -> None:
    groups = adamw(nn.Linear(3, 2), 0.1, 0.5).param_groups
    assert [(len(g["params"]), g["params"][0].dim(), g["weight_decay"]) for g in groups] == [
        (1, 2, 0.5),
        (1, 1, 0.0),
    ]


def test_averaged_weights_follow_slowly_and_step_aside() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = AveragedWeights(model, 0.5)
    nn.init.ones_(model.weight)
    average.update(1000)
    with average.in_place():
        assert model.weight.item() == 0.5
    assert model.weight.item() == 1
    average.update(0)  # early on the decay is less: 0.1
    average.apply()
    assert model.weight.item() == pytest.approx(0.95)
    assert not torch.equal(average.shadow[0], torch.zeros(1, 1))
