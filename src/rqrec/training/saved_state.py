"""Whether the state in a checkpoint is that of the run that resumes: a damaged one is refused in a sentence."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from torch import Tensor, nn

from rqrec.core.tensors import check_names_and_shapes
from rqrec.training.checkpoint import TrainingState

OPTIMIZER_STATE = {"step", "exp_avg", "exp_avg_sq"}  # of AdamW, for each parameter
PRECISIONS = ("no", "bf16", "fp16")
HOW_TO_RESTART = "Remove this checkpoint to resume from the one before, or set train.resume='never'."


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def check_weights(state: TrainingState, model: nn.Module) -> None:
    """Raise ValueError unless the weights, and the best ones, if there are any, are those of the model."""
    for prefix in ("model.", "best."):
        if prefix == "model." or with_prefix(prefix, state.tensors):
            check_names_and_shapes(model, with_prefix(prefix, state.tensors), _source(state))


def check_values(state: TrainingState, numbers: Mapping[str, int]) -> None:
    """Raise ValueError unless the values have the right types; `numbers` are those of processes and threads."""
    best = with_prefix("best.", state.tensors)
    valid = {
        "elapsed": _is_number(state.values.get("elapsed")),
        "precision": state.values.get("precision") in PRECISIONS,
        "best_score": _is_number(state.values.get("best_score")) or not best,
        "scaler": isinstance(state.values.get("scaler"), dict),
        **{name: type(state.values.get(name)) is int for name in numbers},
    }
    if wrong := [name for name, is_valid in valid.items() if not is_valid]:
        raise ValueError(
            f"{_source(state)} has {wrong[0]} = {state.values.get(wrong[0])!r}. {HOW_TO_RESTART}"
        )


def check_optimizer(state: TrainingState, parameters: Sequence[Tensor]) -> None:
    """Raise ValueError unless the state of the optimizer fits its parameters, in their order."""
    parts: dict[str, set[str]] = {}
    for name, tensor in with_prefix("optimizer.", state.tensors).items():
        index, _, part = name.partition(".")
        known = index.isdecimal() and int(index) < len(parameters) and part in OPTIMIZER_STATE
        shape = parameters[int(index)].shape if known and part != "step" else ()
        if not known or not tensor.is_floating_point() or tensor.shape != shape:
            raise ValueError(
                f"{_source(state)} has optimizer.{name} of {tensor.dtype} and shape {tuple(tensor.shape)}, which is "
                f"not a state of this optimizer. {HOW_TO_RESTART}"
            )
        parts.setdefault(index, set()).add(part)
    for index, found in parts.items():
        if found != OPTIMIZER_STATE:
            missing = ", ".join(sorted(OPTIMIZER_STATE - found))
            raise ValueError(f"{_source(state)} lacks {missing} of optimizer.{index}. {HOW_TO_RESTART}")


def check_averages(state: TrainingState, parameters: Sequence[Tensor]) -> None:
    """Raise ValueError unless there is an average of each parameter."""
    found = {name: value.shape for name, value in with_prefix("average.", state.tensors).items()}
    if found != {str(index): parameter.shape for index, parameter in enumerate(parameters)}:
        raise ValueError(f"{_source(state)} has averages of other parameters. {HOW_TO_RESTART}")


def _source(state: TrainingState) -> str:
    return f"The checkpoint of step {state.step}"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and isfinite(value)
