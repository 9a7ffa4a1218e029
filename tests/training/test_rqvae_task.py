"""Batches and schedules of the RQ-VAE's training."""

from collections.abc import Mapping
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig
from rqrec.training import loop
from rqrec.training.loop import fit
from rqrec.training.loop_config import LoopConfig
from rqrec.training.rqvae_task import RqVaeTask
from rqrec.training.run_progress import RunProgress


class Recording(RqVae):
    """Counts the resets of dead codes."""

    resets = 0

    def reset_dead_codes(self, *arguments: Any) -> list[int]:
        self.resets += 1
        return super().reset_dead_codes(*arguments)


class RecordingTask(RqVaeTask):
    """Records the steps with a reset of dead codes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.reset_steps: list[int] = []

    def on_step_end(self, progress: RunProgress) -> Mapping[str, float]:
        before = self.model.resets
        values = super().on_step_end(progress)
        self.reset_steps += [progress.step] * (self.model.resets - before)
        return values


def task(rows: int, batch_size: int, reset_every: int = 0) -> RecordingTask:
    torch.manual_seed(0)
    vectors = np.random.default_rng(0).normal(size=(rows, 6)).astype(np.float32)
    made = RecordingTask(Recording(RqVaeConfig(6, 4, (8,), 4, 2)), vectors, batch_size, 0, reset_every)
    made.start()
    return made


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 60), st.integers(1, 70), st.integers(0, 3))
def test_each_row_is_in_one_batch_per_epoch(rows: int, batch_size: int, epoch: int) -> None:
    made = task(rows, batch_size)
    steps = -(-rows // batch_size)
    batches = [made.batch(epoch * steps + step) for step in range(steps)]
    assert torch.cat(batches)[:, 0].sort().values.tolist() == np.sort(made.train_ND[:, 0]).tolist()
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1  # a small last batch would count for a whole step


def test_temperature_and_resets_follow_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that goes on by a second per step, a run of 40 of 100,000 steps has the whole schedule."""
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=count().__next__))
    made = task(50, 16, reset_every=4)
    history = fit(made, LoopConfig(100_000, max_minutes=40 / 60, log_every=1), "by time")
    temperatures = [record["temperature"] for record in history.training]
    assert 38 <= len(temperatures) <= 42
    assert temperatures == sorted(temperatures, reverse=True)
    assert temperatures[0] > 0.09
    assert temperatures[-1] == pytest.approx(0.05)
    assert made.reset_steps == [4, 8, 12, 16, 20, 24, 28]


def test_without_a_time_limit_they_follow_the_steps() -> None:
    made = task(50, 16, reset_every=4)
    history = fit(made, LoopConfig(20, log_every=1), "by steps")
    assert made.reset_steps == [4, 8, 12]
    assert history.training[-1]["temperature"] == pytest.approx(0.05)
    assert history.training[9]["temperature"] == pytest.approx((0.1 * 0.05) ** 0.5)
