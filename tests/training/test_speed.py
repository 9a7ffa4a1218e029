"""Mixed precision and compilation are tried before they are used."""

import pytest
import torch
from torch import Tensor, nn

from rqrec.training import speed
from rqrec.training.loop import LoopSettings, fit
from rqrec.training.speed import choose_precision
from tests.training.test_loop import Line

CPU = torch.device("cpu")


def squared(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


@pytest.mark.parametrize(("bf16_seconds", "chosen"), [(0.5, "bf16"), (0.95, "no"), (2.0, "no")])
def test_auto_takes_bf16_where_it_is_measured_to_gain(
    bf16_seconds: float, chosen: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def seconds(model: nn.Module, loss: object, batch: Tensor, precision: str, device: torch.device) -> float:
        return bf16_seconds if precision == "bf16" else 1.0

    monkeypatch.setattr(speed, "_seconds", seconds)
    assert choose_precision(nn.Linear(1, 1), squared, torch.ones(1, 1), CPU) == chosen
    assert f"{1 / bf16_seconds:.2f} times" in capsys.readouterr().err


def test_measuring_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    choose_precision(model, squared, torch.randn(8, 4), CPU)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["bf16", "fp16", "auto"])
def test_a_line_is_fitted_in_each_precision(precision: str) -> None:
    task = Line()
    settings = LoopSettings(iterations=300, learning_rate=0.1, weight_decay=0.0, mixed_precision=precision)
    fit(task, settings, "line")
    assert task.model.weight.item() == pytest.approx(3, abs=0.1)
    assert task.model.weight.dtype == torch.float32


def test_where_compilation_fails_training_goes_on_without_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(model: nn.Module, **options: object) -> nn.Module:
        class Failing(nn.Module):
            def forward(self, batch: Tensor) -> Tensor:
                raise RuntimeError("no C++ compiler is found")

        return Failing()

    monkeypatch.setattr(torch, "compile", broken)
    fit(Line(), LoopSettings(iterations=2, compile=True), "line")
    said = " ".join(capsys.readouterr().err.split())
    assert "torch.compile does not work here (no C++ compiler is found)" in said


def test_a_compiled_model_is_the_one_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def wrapped(model: nn.Module, **options: object) -> nn.Module:
        class Wrapped(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = model

            def forward(self, batch: Tensor) -> Tensor:
                calls.append(1)
                return self.inner(batch)

        return Wrapped()

    monkeypatch.setattr(torch, "compile", wrapped)
    task = Line()
    fit(task, LoopSettings(iterations=200, learning_rate=0.1, compile=True), "line")
    assert len(calls) == 202  # two to try it
    assert task.model.weight.item() == pytest.approx(3, abs=0.2)
