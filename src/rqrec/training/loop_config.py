"""Settings of the training loop."""

from dataclasses import dataclass

from rqrec.core.values import (
    Config,
    Fraction,
    Minutes,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from rqrec.training.optim import SCHEDULES
from rqrec.training.speed import PRECISIONS


@dataclass(frozen=True)
class LoopConfig(Config):
    """How long, how fast and how precisely to train."""

    iterations: PositiveInt
    """Number of optimizer steps."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of AdamW, applied to matrices only."""
    warmup: NonNegativeInt = 0
    """Number of linear warm-up steps."""
    schedule: str = "cosine"
    """Learning-rate schedule after the warm-up: "cosine", "inverse_sqrt" or "constant"."""
    max_grad_norm: PositiveFloat | None = 1.0
    """Gradients are clipped to this norm; None disables clipping."""
    gradient_accumulate_every: PositiveInt = 1
    """Number of batches per optimizer step."""
    full_eval_every: NonNegativeInt = 0
    """Number of steps between full validations; 0 validates only at the end."""
    partial_eval_every: NonNegativeInt = 0
    """Number of steps between computations of the validation loss; 0 never computes it."""
    patience: NonNegativeInt = 0
    """Training stops after this many full validations without improvement; 0 disables early stopping."""
    max_minutes: Minutes | None = None
    """Time limit in minutes: if it ends the run early, all schedules end with it; None has no limit."""
    model_ema_decay: Fraction | None = None
    """Decay of the exponential moving average of the weights, which is then validated and saved; None disables
    it."""
    log_every: PositiveInt = 20
    """Number of steps between training records in the logs."""
    amp: bool = False
    """Whether to train in mixed precision."""
    mixed_precision_type: str = "auto"
    """Precision if `amp` is on: "no", "bf16", "fp16", or "auto" for bf16 if it is measurably faster here."""
    torch_compile: bool = False
    """Whether to compile the model with torch.compile; if that fails, it trains uncompiled."""
    seed: NonNegativeInt = 0
    """Seed of initialisation, dropout and the order of batches."""

    def __post_init__(self) -> None:
        super().__post_init__()
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
