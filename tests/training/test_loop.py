import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rqrec.core.artifact import read_manifest
from rqrec.training.loop import DivergedError, fit, seed_of
from rqrec.training.loop_config import LoopConfig
from rqrec.training.run_progress import RunProgress
from rqrec.training.tracking import History
from tests.tiny import train_tiny
from tests.training.toy import Line


def test_it_learns_and_logs(tmp_path: Path) -> None:
    task = Line()
    history = fit(task, LoopConfig(iterations=300, learning_rate=0.1, weight_decay=0.0), "line")
    assert task.model.weight.item() == pytest.approx(3, abs=0.05)
    assert history.training[0]["loss"] > history.training[-1]["loss"]
    assert history.training[-1]["step"] == 300
    history.write(tmp_path)
    assert History.read(tmp_path) == history
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line)["split"] in ("training", "validation")


def test_the_best_validated_weights_are_kept() -> None:
    task = Line([0.1, 0.9, 0.5])
    fit(task, LoopConfig(iterations=30, learning_rate=0.1, full_eval_every=10), "line")
    assert task.model.weight.item() == task.weights[1] != task.weights[2]


def test_accumulated_batches_are_different_batches() -> None:
    task = Line()
    fit(task, LoopConfig(iterations=5, gradient_accumulate_every=3), "line")
    assert task.steps == list(range(15))


def test_a_nan_loss_before_any_validation_raises() -> None:
    class Broken(Line):
        def loss(
            self, model: nn.Module, batch: Tensor, progress: RunProgress
        ) -> tuple[Tensor, Mapping[str, float]]:
            return model(batch).sum() * math.nan, {}

    with pytest.raises(DivergedError, match=r"loss is nan at step 1.*learning_rate \(0.01\)"):
        fit(Broken(), LoopConfig(iterations=3, learning_rate=0.01), "broken")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": 0}, "iterations is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"mixed_precision_type": "int8"}, "'int8'"),
    ],
)
def test_invalid_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoopConfig(**{"iterations": 1, **settings})


def test_artefacts_are_reproducible_and_depend_on_the_seed(tmp_path: Path) -> None:
    hashes = []
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        train_tiny(tmp_path / name, seed=seed, iterations=20)
        folders = ("dataset", "tokenizer/rqvae", "semantic_ids", "retrieval")
        hashes.append([read_manifest(tmp_path / name / folder).hash for folder in folders])
        for folder in ("tokenizer/rqvae", "retrieval"):
            metrics = read_manifest(tmp_path / name / folder).metrics
            assert (metrics["processes"], metrics["threads"]) == (1, torch.get_num_threads())
    assert hashes[0] == hashes[1]
    assert hashes[0][0] == hashes[2][0]
    assert hashes[0][1] != hashes[2][1]
    assert hashes[0][3] != hashes[2][3]


def test_early_stopping_waits_for_patience_validations_and_keeps_the_best() -> None:
    task = Line([0.1, 0.5, 0.4, 0.3, 0.9])
    history = fit(task, LoopConfig(iterations=50, full_eval_every=10, patience=2), "line")
    assert [record["step"] for record in history.validation] == [10, 20, 30, 40]
    assert "has not risen above 0.5000 in 2 validations" in str(history.stopped)
    assert task.model.weight.item() == task.weights[1]
    with pytest.raises(ValueError, match="patience"):
        fit(Line(), LoopConfig(iterations=5, patience=1), "line")


def test_a_task_without_a_validation_loss_refuses_partial_eval_every() -> None:
    with pytest.raises(ValueError, match="partial_eval_every is 2, but Line has no validation loss"):
        fit(Line(), LoopConfig(iterations=5, partial_eval_every=2), "line")


@pytest.mark.parametrize(("amp", "precision"), [(True, "bf16"), (False, "no")])
def test_mixed_precision_needs_amp(amp: bool, precision: str) -> None:
    assert LoopConfig(1, amp=amp, mixed_precision_type="bf16").precision == precision


def test_the_time_limit_stops_training_before_the_last_iteration() -> None:
    class Slow(Line):
        def on_step_end(self, progress: RunProgress) -> Mapping[str, float]:
            time.sleep(0.02)
            return {}

    task = Slow([0.5])
    history = fit(task, LoopConfig(iterations=100_000, max_minutes=0.3 / 60), "line")
    assert 2 < history.validation[-1]["step"] < 100
    assert "max_minutes" in str(history.stopped)


def test_averaged_weights_are_validated_and_kept() -> None:
    plain, averaged = Line(), Line()
    averaged.model.load_state_dict(plain.model.state_dict())
    settings = {"iterations": 20, "learning_rate": 0.05}
    fit(plain, LoopConfig(**settings), "line")
    fit(averaged, LoopConfig(**settings, model_ema_decay=0.9), "line")
    assert averaged.weights == [averaged.model.weight.item()]
    assert averaged.model.weight.item() < plain.model.weight.item()  # the average lags behind on the way to 3


def test_accumulated_batches_of_unequal_size_equal_one_large_batch() -> None:
    class Parts(Line):
        """Cycles through 8 rows, in batches of the given sizes."""

        def __init__(self, sizes: list[int]) -> None:
            torch.manual_seed(0)
            super().__init__()
            self.sizes = sizes

        def batch(self, step: int) -> Tensor:
            rows = torch.arange(8.0)[:, None].split(self.sizes)
            return rows[step % len(rows)]

    one, two = Parts([8]), Parts([2, 6])
    settings = {"iterations": 5, "log_every": 1}
    at_once = fit(one, LoopConfig(**settings), "line")
    parts = fit(two, LoopConfig(**settings, gradient_accumulate_every=2), "line")
    for a, b in zip(at_once.training, parts.training, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    assert one.model.weight.item() == pytest.approx(two.model.weight.item(), rel=1e-5)


def test_seeds_of_steps_are_reproducible_and_distinct() -> None:
    assert seed_of(0, 5, 0) == seed_of(0, 5, 0)
    assert (
        len({seed_of(seed, step, rank) for seed in range(5) for step in range(50) for rank in (0, 1)}) == 500
    )
