"""Every setting of the training loop changes what a run does."""

from collections.abc import Mapping
from dataclasses import fields
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rqrec.training import loop
from rqrec.training.loop import fit
from rqrec.training.loop_config import LoopConfig
from rqrec.training.run_progress import RunProgress
from tests.training.toy import Line

BASE: dict[str, Any] = {"iterations": 8, "learning_rate": 0.05, "weight_decay": 0.1, "log_every": 1}

# For each setting, settings that differ in it alone.
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "iterations": ({}, {"iterations": 9}),
    "learning_rate": ({}, {"learning_rate": 0.06}),
    "weight_decay": ({}, {"weight_decay": 0.5}),
    "warmup": ({}, {"warmup": 3}),
    "schedule": ({"warmup": 2}, {"warmup": 2, "schedule": "inverse_sqrt"}),
    "max_grad_norm": ({}, {"max_grad_norm": 1e-9}),
    "gradient_accumulate_every": ({}, {"gradient_accumulate_every": 2}),
    "full_eval_every": ({}, {"full_eval_every": 3}),
    "partial_eval_every": ({}, {"partial_eval_every": 3}),
    "patience": ({"full_eval_every": 1}, {"full_eval_every": 1, "patience": 1}),
    "max_minutes": ({}, {"max_minutes": 4 / 60}),
    "model_ema_decay": ({}, {"model_ema_decay": 0.5}),
    "log_every": ({}, {"log_every": 3}),
    "amp": ({"mixed_precision_type": "bf16"}, {"mixed_precision_type": "bf16", "amp": True}),
    "mixed_precision_type": (
        {"amp": True, "mixed_precision_type": "no"},
        {"amp": True, "mixed_precision_type": "bf16"},
    ),
    "torch_compile": ({}, {"torch_compile": True}),
    "seed": ({}, {"seed": 1}),
}


class Noisy(Line):
    """With noise, a validation loss and validations that become worse."""

    has_validation_loss = True

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])

    def loss(
        self, model: nn.Module, batch: Tensor, progress: RunProgress
    ) -> tuple[Tensor, Mapping[str, float]]:
        return super().loss(model, batch + 0.01 * torch.rand(()), progress)

    def validation_loss(self) -> Mapping[str, float]:
        return {"loss": self.model.weight.item()}


def outcome(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """All that a run leaves behind; the clock goes on by a second per step."""
    compiled: list[nn.Module] = []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "time", SimpleNamespace(monotonic=count().__next__))
        patch.setattr(torch, "compile", lambda model, **options: compiled.append(model) or model)
        task = Noisy()
        history = fit(task, LoopConfig(**{**BASE, **settings}), "noisy")
    return [tensor.tolist() for tensor in task.model.state_dict().values()], vars(history), len(compiled)


@pytest.mark.parametrize("name", [field.name for field in fields(LoopConfig)])
def test_every_setting_has_an_effect(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = CHANGES[name]
    assert outcome(before, monkeypatch) == outcome(before, monkeypatch)
    assert outcome(before, monkeypatch) != outcome(after, monkeypatch)
