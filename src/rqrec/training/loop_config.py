"""Settings of the training loop."""

from dataclasses import dataclass

from rqrec.training.optim import SCHEDULES
from rqrec.training.speed import PRECISIONS


@dataclass(frozen=True)
class LoopConfig:
    """How long, how fast and how precisely to train."""

    iterations: int
    """Number of optimizer steps."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.01
    """Weight decay of AdamW, applied to matrices only."""
    warmup: int = 0
    """Number of linear warm-up steps."""
    schedule: str = "cosine"
    """Learning-rate schedule after the warm-up: "cosine", "inverse_sqrt" or "constant"."""
    max_grad_norm: float | None = 1.0
    """Gradients are clipped to this norm; None disables clipping."""
    gradient_accumulate_every: int = 1
    """Number of batches per optimizer step."""
    full_eval_every: int = 0
    """Number of steps between full validations; 0 validates only at the end."""
    partial_eval_every: int = 0
    """Number of steps between computations of the validation loss; 0 never computes it."""
    patience: int = 0
    """Training stops after this many full validations without improvement; 0 disables early stopping."""
    max_minutes: float | None = None
    """Time limit in minutes: if it ends the run early, all schedules end with it; None has no limit."""
    ema_decay: float | None = None
    """Decay of the moving average of the weights, which is then validated and saved; None disables it."""
    log_every: int = 20
    """Number of steps between training records in the logs."""
    amp: bool = False
    """Whether to train in mixed precision."""
    mixed_precision_type: str = "auto"
    """Precision if `amp` is on: "no", "bf16", "fp16", or "auto" for bf16 if it is measurably faster here."""
    torch_compile: bool = False
    """Whether to compile the model with torch.compile; if that fails, it trains uncompiled."""
    seed: int = 0
    """Seed of initialisation, dropout and the order of batches."""

    def __post_init__(self) -> None:
        for name in ("iterations", "gradient_accumulate_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1.")
        for name in ("warmup", "full_eval_every", "partial_eval_every", "patience", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must not be negative.")
        for name in ("learning_rate", "max_grad_norm", "max_minutes"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be above 0.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}, but must be between 0 and 1.")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is {self.schedule!r}; allowed are {', '.join(SCHEDULES)}.")
        if self.mixed_precision_type not in PRECISIONS:
            raise ValueError(
                f"mixed_precision_type is {self.mixed_precision_type!r}; allowed are {', '.join(PRECISIONS)}."
            )

    @property
    def precision(self) -> str:
        """The mixed precision in effect: "no" without `amp`."""
        return self.mixed_precision_type if self.amp else "no"
