"""Mixed precision and compilation, both tested before use."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rqrec.training import speed
from rqrec.training.loop import fit
from rqrec.training.loop_config import LoopConfig
from rqrec.training.run_progress import RunProgress
from rqrec.training.speed import choose_precision
from rqrec.training.tracking import History
from tests.stages.world import decoder_settings, run, write_world
from tests.training.toy import Line

CPU = torch.device("cpu")


def squared(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


@pytest.mark.parametrize(("bf16_seconds", "chosen"), [(0.5, "bf16"), (0.95, "no"), (2.0, "no")])
def test_auto_chooses_bf16_if_it_is_measurably_faster(
    bf16_seconds: float, chosen: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def seconds(model: nn.Module, loss: object, batch: Tensor, precision: str, device: torch.device) -> float:
        return bf16_seconds if precision == "bf16" else 1.0

    monkeypatch.setattr(speed, "_seconds", seconds)
    monkeypatch.setattr(speed, "has_bf16", lambda device: True)
    assert choose_precision(nn.Linear(1, 1), squared, torch.ones(1, 1), CPU) == chosen
    assert f"{1 / bf16_seconds:.2f} times" in capsys.readouterr().err


def test_auto_measures_nothing_on_hardware_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "has_bf16", lambda device: False)
    monkeypatch.setattr(speed, "_seconds", None)
    assert choose_precision(nn.Linear(1, 1), squared, torch.ones(1, 1), CPU) == "no"


def test_measuring_leaves_the_model_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "has_bf16", lambda device: True)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    choose_precision(model, squared, torch.randn(8, 4), CPU)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("precision", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_a_line_is_fitted_in_each_precision(precision: str, dtype: torch.dtype) -> None:
    class Watched(Line):
        def loss(
            self, model: nn.Module, batch: Tensor, progress: RunProgress
        ) -> tuple[Tensor, Mapping[str, float]]:
            assert model(batch).dtype == dtype
            return super().loss(model, batch, progress)

    task = Watched()
    settings = LoopConfig(
        iterations=300, learning_rate=0.1, weight_decay=0.0, amp=True, mixed_precision_type=precision
    )
    fit(task, settings, "line")
    assert task.model.weight.item() == pytest.approx(3, abs=0.1)
    assert task.model.weight.dtype == torch.float32


def test_training_continues_uncompiled_if_compilation_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(model: nn.Module, **options: object) -> nn.Module:
        class Failing(nn.Module):
            def forward(self, batch: Tensor) -> Tensor:
                raise RuntimeError("no C++ compiler is found")

        return Failing()

    monkeypatch.setattr(torch, "compile", broken)
    fit(Line(), LoopConfig(iterations=2, torch_compile=True), "line")
    output = " ".join(capsys.readouterr().err.split())
    assert "torch.compile failed (no C++ compiler is found)" in output


def test_the_compiled_model_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
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
    fit(task, LoopConfig(iterations=200, learning_rate=0.1, torch_compile=True), "line")
    assert len(calls) == 202  # two of them try it out
    assert task.model.weight.item() == pytest.approx(3, abs=0.2)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("architecture", ["decoder_only", "hierarchical"])
def test_bf16_reaches_the_quality_of_fp32(architecture: str, tmp_path: Path) -> None:
    world = write_world(tmp_path / "world")
    losses, quality = [], []
    for precision in ("no", "bf16"):
        more = {"iterations": 200, "learning_rate": 5e-3, "partial_eval_every": 200, "amp": precision != "no"}
        more |= {"mixed_precision_type": "bf16", "architecture": architecture}
        history = History.read(run("decoder", decoder_settings(world, tmp_path / precision, **more)))
        losses.append(history.partial[-1]["loss"])
        quality.append(history.validation[-1]["ndcg@10"])
    untrained = torch.tensor(float(History.read(tmp_path / "no" / "logs").training[0]["loss"]))
    assert losses[0] < 0.8 * untrained  # it learns, so that there is something to lose precision on
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert quality[1] == pytest.approx(quality[0], abs=0.03)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler.")
def test_a_compiled_run_has_the_same_losses_as_an_uncompiled_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = write_world(tmp_path / "world")
    plain, fast = (
        History.read(
            run("decoder", decoder_settings(world, tmp_path / name, torch_compile=compiles, amp=False))
        )
        for name, compiles in (("plain", False), ("fast", True))
    )
    assert "torch.compile failed" not in capsys.readouterr().err
    for a, b in zip(plain.training + plain.validation, fast.training + fast.validation, strict=True):
        assert b == pytest.approx(a, rel=1e-3, abs=1e-3)
