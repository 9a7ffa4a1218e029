"""Logs and warnings of a run."""

import json
import os
import re
import subprocess
import sys
import time
import types
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig
from rqrec.training.loop import DivergedError, fit
from rqrec.training.loop_config import LoopConfig
from rqrec.training.rqvae_task import RqVaeTask
from rqrec.training.run_progress import RunProgress
from rqrec.training.tracking import History, check_wandb
from tests.training.toy import Line, manager


class Script(Line):
    """Multiplies the loss of some steps by a factor."""

    def __init__(self, factors: Mapping[int, float], scores: list[float] | None = None) -> None:
        torch.manual_seed(0)
        super().__init__(scores)
        self.factors = factors

    def loss(
        self, model: nn.Module, batch: Tensor, progress: RunProgress
    ) -> tuple[Tensor, Mapping[str, float]]:
        loss, parts = super().loss(model, batch, progress)
        return loss * self.factors.get(progress.step, 1.0), parts


def test_metrics_are_written_during_training(tmp_path: Path) -> None:
    class Reading(Line):
        lines = 0

        def on_step_end(self, progress: RunProgress) -> Mapping[str, float]:
            self.lines = len((tmp_path / "logs" / "metrics.jsonl").read_text().splitlines())
            return {}

    task = Reading()
    fit(task, LoopConfig(iterations=6, log_every=1), "line", manager(tmp_path))
    assert task.lines == 5


def test_tensorboard_and_metrics_agree_and_have_no_duplicates_after_a_failure(tmp_path: Path) -> None:
    class Failing(Line):
        def on_step_end(self, progress: RunProgress) -> Mapping[str, float]:
            if progress.step == 6:
                raise RuntimeError
            return {}

    settings, checkpoints = LoopConfig(iterations=8, log_every=1), manager(tmp_path, save_model_every=3)
    with pytest.raises(RuntimeError):
        fit(Failing(), settings, "line", checkpoints)
    history = fit(Line(), settings, "line", checkpoints)
    rows = [json.loads(line) for line in (checkpoints.logs / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "training"] == list(range(1, 9))
    events = EventAccumulator(str(checkpoints.logs)).Reload().Scalars("training/loss")
    assert [event.step for event in events] == list(range(1, 9))
    assert [event.value for event in events] == pytest.approx([r["loss"] for r in history.training])


def test_wandb_logging_without_the_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "rqrec\[wandb\]"'):
        check_wandb()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "wandb is not logged in here: run `wandb login`"),
        ({"WANDB_API_KEY": "!"}, "refuses its settings .*set WANDB_API_KEY"),
        ({"WANDB_MODE": "nonsense"}, "refuses its settings"),
        ({"WANDB_MODE": "offline"}, None),
        ({"WANDB_MODE": "disabled"}, None),
    ],
)
def test_the_real_wandb_without_a_login_is_refused_unless_it_is_offline(
    environment: dict[str, str], expected: str | None, tmp_path: Path
) -> None:
    """In a process and home of its own: wandb keeps what it has read of its settings."""
    pytest.importorskip("wandb", reason="An optional package.")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-c", "from rqrec.training.tracking import check_wandb; check_wandb()"],
        env=kept | {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none")} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if expected is None:
        assert done.returncode == 0, done.stderr
    else:
        assert re.search(rf"ValueError: train\.wandb_logging=True, but .*{expected}", done.stderr)


def test_a_run_that_wandb_cannot_start_ends_in_a_sentence_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CommError(Exception):
        pass

    def init(**arguments: object) -> None:
        raise CommError("no route to host\nand a long trace")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init, Error=CommError))
    task = Line()
    before = task.model.weight.item()
    with pytest.raises(ConnectionError, match=r"\(no route to host\).*WANDB_MODE=offline"):
        fit(task, LoopConfig(iterations=2), "line", manager(tmp_path, wandb_logging=True))
    assert task.model.weight.item() == before


def test_wandb_gets_every_record_under_the_same_run_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged, ids = [], []

    class Run:
        def log(self, values: dict, step: int) -> None:
            logged.append((step, values["training/loss"]))

        def finish(self) -> None:
            logged.append("finished")

    def init(**arguments: object) -> Run:
        ids.append(arguments["id"])
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init, Error=OSError))
    checkpoints = manager(tmp_path, wandb_logging=True)
    history = fit(Line(), LoopConfig(iterations=2, log_every=1), "line", checkpoints)
    assert logged == [*((r["step"], r["loss"]) for r in history.training), "finished"]
    fit(Line(), LoopConfig(iterations=2), "line", checkpoints)
    assert ids[0] == ids[1]


def test_a_nan_loss_stops_with_the_best_validated_weights(
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = Script({25: float("nan")}, [0.1, 0.9])
    history = fit(task, LoopConfig(iterations=100, full_eval_every=10, log_every=1), "line")
    assert task.model.weight.item() == task.weights[1]
    assert "the loss is nan at step 26" in str(history.stopped)
    assert "best validated weights are kept" in " ".join(capsys.readouterr().err.split())


def test_no_checkpoint_is_saved_after_the_loss_became_infinite(tmp_path: Path) -> None:
    checkpoints = manager(tmp_path, save_model_every=5)
    with pytest.raises(DivergedError, match=r"step 10\..*last good checkpoint is \S+step-000000005;"):
        fit(Script({7: float("inf")}), LoopConfig(iterations=100, log_every=50), "line", checkpoints)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-000000005"]


def test_a_diverging_loss_is_warned_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    fit(Script({4: 1e3, 5: 1e3}), LoopConfig(iterations=8, log_every=1), "line")
    output = " ".join(capsys.readouterr().err.split())
    assert output.count("training diverges") == 1
    assert "Step 5" in output


def test_a_collapsed_codebook_is_reported_with_its_metrics() -> None:
    vectors = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    model = RqVae(RqVaeConfig(6, 4, (8,), 64, 2))
    task = RqVaeTask(model.eval(), vectors, 20, 0)
    task.start()
    assert not task.health_warnings(task.validate())
    with torch.no_grad():
        model.quantizer.codebooks()[1].weight[2:] = 1e6  # far from every item
    (warning,) = task.health_warnings(task.validate())
    for expected in ("level 1 has collapsed", "3.1% of its 64 codes", "perplexity", "collision rate"):
        assert expected in warning


def test_a_history_survives_a_round_trip(tmp_path: Path) -> None:
    history = History([{"step": 1, "loss": 0.5}], [{"step": 2, "loss": 1.0}], [{"step": 2, "ndcg@10": 0.25}])
    history.write(tmp_path)
    assert History.read(tmp_path) == history


@pytest.mark.slow
def test_the_real_wandb_logs_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="An optional package.")
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_wandb()
    fit(Line(), LoopConfig(iterations=3, log_every=1), "line", manager(tmp_path, wandb_logging=True))
    (log_file,) = (tmp_path / "logs" / "wandb").glob("offline-run-*/*.wandb")
    deadline = time.monotonic() + 60  # wandb writes in a process of its own
    while b"training/loss" not in log_file.read_bytes():
        assert time.monotonic() < deadline, log_file.read_bytes()
        time.sleep(0.2)
