"""Optimizer, learning-rate schedules and averaged weights."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from rqrec.training.run_progress import RunProgress

SCHEDULES = ("cosine", "inverse_sqrt", "constant")
MAX_WARMUP_TIME = 0.1  # of the time limit


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> AdamW:
    """AdamW (arXiv 1711.05101) with weight decay on matrices only, not on biases, norms and other vectors."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    # Fused also on CPUs: one pass over the parameters instead of a dozen.
    return AdamW(
        [group for group in groups if group["params"]], lr=learning_rate, betas=(0.9, 0.98), fused=True
    )


def learning_rate_factor(schedule: str, progress: RunProgress, warmup: int) -> float:
    """The factor on the peak learning rate for the next step: a linear warm-up, then the schedule.

    cosine: half a cosine from 1 to 0.1 at the last step; inverse_sqrt: sqrt(warmup / step) (arXiv 1706.03762,
    section 5.3); constant: 1. If the time is ahead of the steps, the schedule follows the time, and the warm-up takes
    at most `MAX_WARMUP_TIME` of it.
    """
    if progress.step < warmup:
        rising = max((progress.step + 1) / warmup, progress.spent / MAX_WARMUP_TIME)
        if rising < 1:
            return rising
    at, iterations = progress.scheduled_step, progress.iterations
    if schedule == "constant":
        return 1.0
    if schedule == "inverse_sqrt":
        return min(1.0, math.sqrt(max(1, warmup) / max(1.0, at)))
    done = (at - warmup) / max(1, iterations - warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))


class AveragedWeights:
    """The exponential moving average of a model's parameters; buffers are not averaged.

    The decay warms up as (1 + t) / (10 + t) until it reaches `decay`, so that the untrained weights soon lose their
    influence.
    """

    # torch's AveragedModel has no such warm-up, and keeps a second module where this keeps tensors.

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self.shadow = [parameter.detach().clone() for parameter in model.parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the parameters after a step."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.shadow, list(self._model.parameters()), 1 - decay)

    def apply(self) -> None:
        """Replace the model's weights by the averaged ones."""
        _copy(self._model, self.shadow)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """A context in which the model has the averaged weights."""
        trained = [parameter.detach().clone() for parameter in self._model.parameters()]
        _copy(self._model, self.shadow)
        try:
            yield
        finally:
            _copy(self._model, trained)


@torch.no_grad()
def _copy(model: nn.Module, values: list[Tensor]) -> None:
    for parameter, value in zip(model.parameters(), values, strict=True):
        parameter.copy_(value)
