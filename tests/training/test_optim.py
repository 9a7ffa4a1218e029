import pytest
import torch
from torch import nn

from rqrec.training.optim import SCHEDULES, AveragedWeights, adamw, learning_rate_factor
from rqrec.training.run_progress import RunProgress


def factor(schedule: str, step: int, *, warmup: int = 4, spent: float = 0.0) -> float:
    return learning_rate_factor(schedule, RunProgress(step, 100, spent), warmup)


def test_schedules_warm_up_linearly_and_then_decay() -> None:
    for schedule in SCHEDULES:
        rising = [factor(schedule, step) for step in range(4)]
        assert rising == [0.25, 0.5, 0.75, 1.0]
        falling = [factor(schedule, step) for step in range(4, 100)]
        assert falling == sorted(falling, reverse=True)
    assert factor("cosine", 4) == 1
    assert factor("cosine", 52) == pytest.approx(0.55)
    assert factor("cosine", 100) == pytest.approx(0.1)
    assert factor("inverse_sqrt", 64) == 0.25
    assert factor("constant", 99) == 1


def test_the_decay_follows_the_time_if_it_is_ahead_of_the_steps() -> None:
    for schedule in SCHEDULES:
        assert factor(schedule, 10, spent=0.5) == factor(schedule, 50)
        assert factor(schedule, 60, spent=0.5) == factor(schedule, 60)
    assert factor("cosine", 10, spent=3.0) == pytest.approx(0.1)
    assert RunProgress(10, 100, 3.0).fraction == 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_warm_up_takes_at_most_a_tenth_of_the_time_limit(schedule: str) -> None:
    """A run that the limit ends within its warm-up steps still reaches the peak learning rate."""
    factors = [factor(schedule, step, warmup=80, spent=step / 20) for step in range(21)]
    assert factors[:3] == pytest.approx([1 / 80, 0.5, 1])
    assert factors[2:] == sorted(factors[2:], reverse=True)


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
