"""The training loop of all models.

Every random choice in a step is drawn from the seed and the step, so a resumed run makes the same choices as an
uninterrupted one.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import patch_environment, send_to_device, slice_tensors
from torch import Tensor, nn

from rqrec.core.memory import FreeMemory
from rqrec.core.progress import log, meter
from rqrec.training.checkpoint import CheckpointManager, TrainingState
from rqrec.training.loop_config import LoopConfig
from rqrec.training.optim import AveragedWeights, adamw, learning_rate_factor
from rqrec.training.processes import Processes
from rqrec.training.run_progress import RunProgress
from rqrec.training.saved_state import (
    check_averages,
    check_optimizer,
    check_values,
    check_weights,
    with_prefix,
)
from rqrec.training.sharding import gathered, sharded, sharded_as
from rqrec.training.speed import autocast, choose_precision, compiled
from rqrec.training.task import Task
from rqrec.training.tracking import History, Tracker

DIVERGING = 3.0  # training diverges when the loss exceeds this many times the first one


class DivergedError(ValueError):
    """The loss is NaN or infinite, and there are no validated weights to fall back to."""


def fit(
    task: Task, config: LoopConfig, description: str, checkpoints: CheckpointManager | None = None
) -> History:
    """Train `task.model` in place; it ends with the best validated weights (see `Task.selects_on`).

    With `checkpoints`, checkpoints and logs are written and an unfinished run is resumed. If the loss becomes NaN
    or infinite, training stops with the best validated weights and `History.stopped` gives the reason.

    Raises DivergedError if the loss becomes NaN or infinite before a validation, KeyboardInterrupt on Ctrl-C (once
    the step is finished and a checkpoint is saved), ValueError if the checkpoint belongs to another run, or another
    process is training in the same folder.
    """
    alone = checkpoints.locked() if checkpoints and Processes.join().is_first else nullcontext()
    with alone:
        return _Fit(task, config, description, checkpoints).run()


class _Fit:
    """The state of a run, and one step of it."""

    def __init__(
        self, task: Task, config: LoopConfig, description: str, checkpoints: CheckpointManager | None
    ) -> None:
        if config.patience and task.selects_on is None:
            raise ValueError(
                f"patience is {config.patience}, but {type(task).__name__} has no validation metric to select on: "
                "set it to 0."
            )
        if config.partial_eval_every and not task.has_validation_loss:
            raise ValueError(
                f"partial_eval_every is {config.partial_eval_every}, but {type(task).__name__} has no validation "
                "loss to compute between full validations: set it to 0."
            )
        self.task, self.config, self.description, self.checkpoints = task, config, description, checkpoints
        self.processes = Processes.join()
        # Mixed precision is implemented here, because accelerate fixes one per process, and so is sharding, because
        # accelerate shards on GPUs only.
        with patch_environment(ACCELERATE_USE_FSDP="false"):
            self.accelerator = Accelerator(mixed_precision="no")
        self.device = self.accelerator.device
        self.done, self.elapsed, self.interrupted = 0, 0.0, False
        self.memory = FreeMemory()
        self.best_score, self.best = float("-inf"), dict[str, Tensor]()
        state = checkpoints.load(task.selects_on) if checkpoints else None
        if state:
            check_values(state, self.processes.numbers)
            check_weights(state, task.model)
            task.model.load_state_dict(with_prefix("model.", state.tensors))
        task.model.to(self.device).train()
        self.precision = state.values["precision"] if state else self._precision()
        self.shards = self.processes.shards and task.shardable
        if self.shards and (config.torch_compile or self.precision == "fp16"):
            raise ValueError(
                "A sharded model (FSDP) trains in fp32 or bf16 and without torch.compile: set "
                "train.torch_compile=False and train.mixed_precision_type='bf16', or launch with --multi_gpu."
            )
        # The model being trained: the task's, or a sharded copy of it.
        self.trained = sharded(task.model) if self.shards else task.model
        self.optimizer = adamw(self.trained, config.learning_rate, config.weight_decay)
        self.average = (
            AveragedWeights(self.trained, config.model_ema_decay) if config.model_ema_decay else None
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        if state:
            self._restore(state)
        model = self.trained
        if config.torch_compile:
            first = send_to_device(task.batch(0), self.device)
            model = compiled(model, self._first_loss, first, self.precision, self.device)
        self.model = model if self.shards else self.accelerator.prepare(model)
        self.start = time.monotonic() - self.elapsed
        writes = checkpoints is not None and self.processes.is_first
        self.tracker = Tracker(
            checkpoints.logs if checkpoints and writes else None,
            state.history if state else History(),
            wandb=checkpoints.config.wandb_logging if checkpoints else False,
            settings=checkpoints.settings if checkpoints else {},
        )
        self.history = self.tracker.history
        self.history.precision = self.precision

    def run(self) -> History:
        left = self.config.iterations - self.done
        title = f"{self.description}, from step {self.done}" if self.done else self.description
        try:
            with meter(title, left, self._seconds_left()) as progress, _deferred_interrupt(self):
                while self.done < self.config.iterations and self.history.stopped is None:
                    progress.advance(1, self._step())
                    self.memory.limit()
        finally:
            self.tracker.close()
        if self.best:
            self.task.model.load_state_dict(self.best)
        else:
            if self.average:
                self.average.apply()
            self._gather_weights()
        self.task.model.eval()
        return self.history

    def _seconds_left(self) -> float | None:
        """The seconds of the time limit that are left; None without one."""
        return None if self.config.max_minutes is None else 60 * self.config.max_minutes - self.elapsed

    def _step(self) -> str:
        """One optimizer step, then logging, validation and saving if due. Returns a note for the progress bar."""
        config = self.config
        batches = [self._local_batch(number) for number in self._batch_numbers()]
        now = time.monotonic() - self.start if self.processes.is_first else 0.0
        total, self.elapsed, stops = self.processes.sums(
            [sum(weight for _, weight in batches), now, float(self.interrupted)]
        )
        if stops:
            self._stop_interrupted()
        spent = self.elapsed / (60 * config.max_minutes) if config.max_minutes else 0.0
        progress = RunProgress(self.done, config.iterations, spent)
        losses = self._optimize([(batch, weight / total) for batch, weight in batches], progress)
        extra = self.task.on_step_end(replace(progress, step=self.done + 1))
        if self.average:
            self.average.update(self.done)
        self.done += 1
        last = self.done == config.iterations or spent >= 1
        logs = (self.done - 1) % config.log_every == 0 or last
        validates = last or _is_due(self.done, config.full_eval_every)
        saves = (
            self.checkpoints is not None
            and _is_due(self.done, self.checkpoints.config.save_model_every)
            and not last
        )
        note = ""
        if logs or validates or saves:
            record = {"step": self.done, **self._mean(losses), **_floats(extra)}
            note = f"loss {record['loss']:.3f}"
            if not np.isfinite(record["loss"]):
                self._diverged(record["loss"])
                return note
            if logs:
                self._warn_if_diverging(record)
                self.tracker.record("training", record)
        if _is_due(self.done, config.partial_eval_every):
            self._evaluate("partial", self.task.validation_loss)
        if validates:
            self._validate()
        if last and self.done < config.iterations:
            self.history.stopped = (
                f"The time limit max_minutes ({config.max_minutes}) was reached at step {self.done}."
            )
        if saves and self.history.stopped is None:
            self._save()
        return note

    def _batch_numbers(self) -> range:
        every = self.config.gradient_accumulate_every
        return range(self.done * every, (self.done + 1) * every)

    def _local_batch(self, number: int) -> tuple[Any, float]:
        """This process's rows of a batch, and the weight of their mean loss.

        A process without rows gets the first row with weight 0, because every process must take part in the step.
        """
        batch = self.task.batch(number)
        rows = self.processes.share(batch)
        weight = 0.0 if rows is None else self.task.weight(rows)
        return send_to_device(slice_tensors(batch, slice(1)) if rows is None else rows, self.device), weight

    def _optimize(
        self, batches: Sequence[tuple[Any, float]], progress: RunProgress
    ) -> list[tuple[float, Mapping[str, Tensor | float]]]:
        """Backward passes of all batches, then an optimizer step. Returns this process's weighted losses."""
        config = self.config
        torch.manual_seed(seed_of(config.seed, progress.step, self.processes.rank))
        factor = learning_rate_factor(config.schedule, progress, config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor
        losses: list[tuple[float, Mapping[str, Tensor | float]]] = []
        for number, (batch, weight) in enumerate(batches, start=1):
            # Gradients are reduced over the processes once per step, with the last batch.
            sync = nullcontext() if number == len(batches) else self.accelerator.no_sync(self.model)
            # In evaluation mode a row without weight leaves no trace, as in the moving averages of codes.
            self.model.train(weight > 0)
            with sync:
                with autocast(self.precision, self.device):
                    loss, parts = self.task.loss(self.model, batch, progress)
                # Gradients are averaged over the processes, but the weighted losses must be summed.
                self.scaler.scale(loss * (weight * self.processes.count)).backward()
            losses.append((weight, {"loss": loss.detach(), **parts}))
        self.scaler.unscale_(self.optimizer)
        if config.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.trained.parameters(), config.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return losses

    def _mean(self, losses: Sequence[tuple[float, Mapping[str, Tensor | float]]]) -> dict[str, float]:
        """The weighted mean of the loss and its parts over the batches of a step and all processes."""
        names = list(losses[0][1])
        weighted = [[weight * value for value in _floats(parts).values()] for weight, parts in losses]
        sums = self.processes.sums([sum(values) for values in zip(*weighted, strict=True)])
        return dict(zip(names, sums, strict=True))

    def _evaluate(self, split: str, compute_metrics: Callable[[], Mapping[str, float]]) -> dict[str, float]:
        """Compute metrics in evaluation mode, with the averaged weights if `model_ema_decay` is set, and log them."""
        self.task.model.eval()
        with self.average.in_place() if self.average else nullcontext():
            self._gather_weights()
            metrics = _floats(compute_metrics())
            if split == "validation":
                self._keep_if_best(metrics)
        self.task.model.train()
        if metrics:
            self.tracker.record(split, {"step": self.done, **metrics})
        return metrics

    def _gather_weights(self) -> None:
        """Copy the trained weights to the task's model, if a sharded copy of it is trained."""
        if self.shards:
            self.task.model.load_state_dict(gathered(self.trained.state_dict()))

    def _validate(self) -> None:
        metrics = self._evaluate("validation", self.task.validate)
        for warning in self.task.health_warnings(metrics):
            log(f"Step {self.done}: {warning}")
        name, patience = self.task.selects_on, self.config.patience
        if name and patience:
            scores = [record[name] for record in self.history.validation]
            if len(scores) - 1 - scores.index(max(scores)) >= patience:
                self.history.stopped = (
                    f"Early stopping at step {self.done}: {name} has not risen above {max(scores):.4f} in {patience} "
                    f"validations."
                )

    def _keep_if_best(self, metrics: Mapping[str, float]) -> None:
        name = self.task.selects_on
        if name is not None and metrics[name] > self.best_score:
            self.best_score = metrics[name]
            self.best = {k: v.detach().clone() for k, v in self.task.model.state_dict().items()}

    def _warn_if_diverging(self, record: Mapping[str, float]) -> None:
        """Warn once each time the loss rises far above that of the untrained model."""
        losses = [logged["loss"] for logged in self.history.training] or [record["loss"]]
        first, bound = losses[0], DIVERGING * abs(losses[0])
        if record["loss"] > bound >= losses[-1]:
            log(
                f"Step {self.done}: the loss is {record['loss']:.3f}, but was {first:.3f} at the start: training "
                f"diverges. Lower learning_rate ({self.config.learning_rate}) or max_grad_norm."
            )

    def _diverged(self, loss: float) -> None:
        reason = f"{self.description} diverged: the loss is {loss} at step {self.done}."
        advice = f"Lower learning_rate ({self.config.learning_rate}) or max_grad_norm."
        if not self.best:
            newest = self.checkpoints.newest() if self.checkpoints else None
            kept = (
                f" The last good checkpoint is {newest}; train.resume='never' starts from scratch."
                if newest
                else ""
            )
            raise DivergedError(f"{reason} {advice}{kept}")
        self.history.stopped = f"{reason} The best validated weights are kept. {advice}"
        log(self.history.stopped)

    def _stop_interrupted(self) -> None:
        """Stop after Ctrl-C, and save a checkpoint if the run has a checkpoint manager."""
        if self.checkpoints:
            folder = self._save()
            log(f"Interrupted: step {self.done} is saved in {folder}. Run the same command again to resume.")
        raise KeyboardInterrupt

    def _save(self) -> Path | None:
        if self.checkpoints is None or not (self.processes.is_first or self.shards):
            return None
        tensors = _prefixed("model.", self.trained.state_dict()) | _prefixed("best.", self.best)
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= _prefixed(f"optimizer.{index}.", state)
        if self.average:
            tensors |= {f"average.{index}": value for index, value in enumerate(self.average.shadow)}
        tensors = gathered(tensors)  # collective: called by every process
        if not self.processes.is_first:
            return None
        values = {
            "best_score": self.best_score if self.best else None,
            "elapsed": time.monotonic() - self.start,
            "precision": self.precision,
            "scaler": self.scaler.state_dict(),
            **self.processes.numbers,
        }
        return self.checkpoints.save(TrainingState(self.done, tensors, values, self.history))

    def _restore(self, state: TrainingState) -> None:
        """Restore everything except the model's weights, which are already loaded."""
        self.done, self.elapsed = state.step, state.values["elapsed"]
        self._report_other_numbers(state.values)
        self.best = {k: v.to(self.device) for k, v in with_prefix("best.", state.tensors).items()}
        if self.best:
            self.best_score = state.values["best_score"]
        values = self.optimizer.state_dict()
        # In the order of the optimizer's state: group by group.
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        check_optimizer(state, parameters)
        for name, tensor in with_prefix("optimizer.", state.tensors).items():
            index, part = name.split(".")
            values["state"].setdefault(int(index), {})[part] = sharded_as(tensor, parameters[int(index)])
        self.optimizer.load_state_dict(values)
        if self.average:
            check_averages(state, list(self.trained.parameters()))
            averaged = with_prefix("average.", state.tensors)
            self.average.shadow = [
                sharded_as(averaged[str(index)].to(self.device), parameter)
                for index, parameter in enumerate(self.trained.parameters())
            ]
        self.scaler.load_state_dict(state.values["scaler"])

    def _report_other_numbers(self, saved: Mapping[str, Any]) -> None:
        """Report if the run resumes with other numbers of processes or threads than it was interrupted with."""
        now = self.processes.numbers
        changes = [
            f"{name} ({count}, before {saved[name]})" for name, count in now.items() if saved[name] != count
        ]
        if changes:
            noise = (
                "" if saved["processes"] == now["processes"] else ", and each process draws its own dropout"
            )
            log(
                f"The run resumes with a different number of {' and '.join(changes)}: sums are rounded "
                f"differently{noise}, so its results can differ from those of an uninterrupted run."
            )

    def _precision(self) -> str:
        """The precision to train in, with "auto" resolved; the same for all processes."""
        if self.config.precision != "auto":
            return self.config.precision
        first = send_to_device(self.task.batch(0), self.device)
        chosen = choose_precision(self.task.model, self._first_loss, first, self.device)
        (bf16,) = self.processes.sums([float(self.processes.is_first and chosen == "bf16")])
        return "bf16" if bf16 else "no"

    def _first_loss(self, model: nn.Module, batch: Any) -> Tensor:
        return self.task.loss(model, batch, RunProgress(0, self.config.iterations))[0]


@contextmanager
def _deferred_interrupt(run: _Fit) -> Iterator[None]:
    """The first Ctrl-C takes effect at the end of the step, a second one immediately."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        run.interrupted = True
        signal.signal(signal.SIGINT, before)
        log("Interrupted: finishing this step. Press Ctrl-C again to stop immediately, without a checkpoint.")

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def seed_of(*numbers: int) -> int:
    """A 63-bit seed from integers (a seed, a step, ...); different integers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _prefixed(prefix: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in values.items()}


def _floats(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    return {k: float(v.detach() if isinstance(v, Tensor) else v) for k, v in values.items()}
