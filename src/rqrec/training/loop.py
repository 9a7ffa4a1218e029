"""One training loop, for the tokenizer and the retrieval model alike."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from rqrec.progress import meter
from rqrec.training.optim import adamw, cosine_with_warmup

METRICS_FILE = "metrics.jsonl"


class Task(Protocol):
    """What the loop trains: a model, its batches, its loss, and how it is judged."""

    @property
    def model(self) -> nn.Module:
        """Trained in place."""

    @property
    def selects_on(self) -> str | None:
        """The validation metric whose highest value marks the best weights; None keeps the last."""

    def batch(self, step: int) -> Any:
        """The batch of a step: a function of the step alone, so that a run can go on from any."""

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The loss to minimise, and its parts to log."""

    def after_step(self, step: int) -> Mapping[str, float]:
        """Upkeep after an optimizer step (annealing, dead codes); what it returns is logged."""

    def validate(self, step: int) -> Mapping[str, float]:
        """Metrics on the validation split; the model is in evaluation mode."""


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to train.

    iterations: optimizer steps
    learning_rate, weight_decay: AdamW's, the rate at its peak
    warmup: steps of linear warm-up
    max_grad_norm: gradients are clipped to this norm; None does not clip
    gradient_accumulate_every: batches per optimizer step
    eval_every: steps between validations; 0 validates only at the end
    log_every: steps between lines of metrics.jsonl
    mixed_precision: "no", "bf16" or "fp16"
    seed: of initialisation, dropout and the order of batches
    """

    iterations: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 0
    max_grad_norm: float | None = 1.0
    gradient_accumulate_every: int = 1
    eval_every: int = 0
    log_every: int = 20
    mixed_precision: str = "no"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations is {self.iterations}, but at least 1 step is needed.")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}, but must be above 0.")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise ValueError(f"mixed_precision_type is {self.mixed_precision!r}: use 'no', 'bf16' or 'fp16'.")


@dataclass
class History:
    """What was logged: one record a logged step, and one a validation."""

    training: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> "History":
        """Read a run's `metrics.jsonl`."""
        history = cls()
        for line in (folder / METRICS_FILE).read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            getattr(history, record.pop("split")).append(record)
        return history

    def write(self, folder: Path) -> None:
        """Write `metrics.jsonl`: a JSON object a line, with its step and split."""
        with (folder / METRICS_FILE).open("w", encoding="utf-8") as file:
            for split in ("training", "validation"):
                for record in getattr(self, split):
                    file.write(json.dumps({"split": split, **record}) + "\n")


class DivergedError(ValueError):
    """The loss is no longer a number."""


def fit(task: Task, settings: LoopSettings, description: str, log_folder: Path | None = None) -> History:
    """Train `task.model` in place; it ends with the best validated weights (see Task.selects_on).

    With `log_folder`, TensorBoard events are written there. Raises DivergedError where the loss is NaN or
    infinite.
    """
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        gradient_accumulation_steps=settings.gradient_accumulate_every,
    )
    set_seed(settings.seed)
    optimizer = adamw(task.model, settings.learning_rate, settings.weight_decay)
    schedule = cosine_with_warmup(optimizer, settings.iterations, settings.warmup)
    model, optimizer = accelerator.prepare(task.model, optimizer)
    history, best = History(), _Best(task)
    events = SummaryWriter(str(log_folder)) if log_folder else None
    model.train()
    with meter(description, settings.iterations) as progress:
        for step in range(settings.iterations):
            for part in range(settings.gradient_accumulate_every):
                with accelerator.accumulate(model), accelerator.autocast():
                    batch = task.batch(step * settings.gradient_accumulate_every + part)
                    loss, parts = task.loss(model, batch)
                    accelerator.backward(loss)
                    if accelerator.sync_gradients and settings.max_grad_norm is not None:
                        accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
                    optimizer.step()
                    optimizer.zero_grad()
            schedule.step()
            extra = task.after_step(step)
            last = step + 1 == settings.iterations
            if step % settings.log_every == 0 or last:
                record = {"step": step + 1, "loss": loss.item(), **_floats(parts), **_floats(extra)}
                if not torch.isfinite(loss):
                    raise DivergedError(
                        f"{description} diverged: the loss is {loss.item()} at step {step + 1}. "
                        f"Lower learning_rate ({settings.learning_rate}) or max_grad_norm."
                    )
                history.training.append(record)
                _log(events, "training", record)
                progress.advance(0, f"loss {record['loss']:.3f}")
            if last or (settings.eval_every and (step + 1) % settings.eval_every == 0):
                model.eval()
                measured = {"step": step + 1, **_floats(task.validate(step))}
                model.train()
                if len(measured) > 1:
                    history.validation.append(measured)
                    _log(events, "validation", measured)
                best.offer(measured)
            progress.advance()
    best.restore()
    task.model.eval()
    if events:
        events.close()
    return history


class _Best:
    """The weights with the highest validated metric."""

    def __init__(self, task: Task) -> None:
        self._task, self._score = task, float("-inf")
        self._weights: dict[str, Tensor] | None = None

    def offer(self, measured: Mapping[str, float]) -> None:
        name = self._task.selects_on
        if name is not None and measured[name] > self._score:
            self._score = measured[name]
            self._weights = {k: v.detach().clone() for k, v in self._task.model.state_dict().items()}

    def restore(self) -> None:
        if self._weights is not None:
            self._task.model.load_state_dict(self._weights)


def _floats(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    return {k: float(v.detach() if isinstance(v, Tensor) else v) for k, v in values.items()}


def _log(events: SummaryWriter | None, split: str, record: Mapping[str, float]) -> None:
    if events:
        for name, value in record.items():
            if name != "step":
                events.add_scalar(f"{split}/{name}", value, int(record["step"]))
