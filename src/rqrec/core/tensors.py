"""Reading tensors that others may have written: damaged files, NaN and sizes that cannot be are refused by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rqrec.core.arrays import safetensors_of
from rqrec.core.errors import first_few
from rqrec.core.memory import memory_of_machine

ModelT = TypeVar("ModelT", bound=nn.Module)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name.

    Raises ValueError, naming the file, if it is missing, damaged, or has a tensor with NaN or infinite values.
    """
    with safetensors_of(path):
        tensors = safetensors.torch.load_file(path)
    check_finite(tensors, path)
    return tensors


def check_finite(tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Raise ValueError, naming the tensor and where it comes from, if a value is NaN or infinite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            raise ValueError(
                f"{source}: the tensor {name} has {bad} NaN or infinite value{'s' * (bad > 1)} of {tensor.numel()}, "
                f"so it is of no use. Take an earlier checkpoint, or train again with a lower learning rate."
            )


def check_memory(build: Callable[[], nn.Module]) -> None:
    """Raise ValueError if the parameters of the model that `build` makes exceed the memory of this machine."""
    with torch.device("meta"), _Uninitialised():  # has shapes and no values
        size = sum(tensor.nbytes for tensor in build().state_dict().values())
    memory = memory_of_machine()
    if size > memory:
        raise ValueError(
            f"The model would have {size / 1e9:,.0f} GB of parameters, but this machine has {memory / 1e9:,.0f} GB "
            f"of memory. Choose smaller widths, fewer layers or smaller codebooks."
        )


def check_names_and_shapes(model: nn.Module, found: Mapping[str, Tensor], source: Path | str) -> None:
    """Raise ValueError unless the tensors are those of the model, which may be on the device "meta"."""
    expected = model.state_dict()
    if expected.keys() != found.keys():
        missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
        parts = [f"lacks the tensors {first_few(missing)}"] if missing else []
        parts += [f"has unexpected tensors {first_few(extra)}"] if extra else []
        raise ValueError(f"{source} {' and '.join(parts)}: it is incomplete or another type of model.")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            raise ValueError(
                f"{source} has {name} of shape {tuple(found[name].shape)}; by its settings the shape must be "
                f"{tuple(tensor.shape)}."
            )
        if tensor.is_floating_point() != found[name].is_floating_point():
            raise ValueError(f"{source} has {name} of {found[name].dtype}; {tensor.dtype} is required.")


def model_with(build: Callable[[], ModelT], tensors: Mapping[str, Tensor], source: Path | str) -> ModelT:
    """The model that `build` makes with these tensors as its weights, in evaluation mode.

    Raises ValueError unless the tensors are those of the model.
    """
    # A wrong size in its settings cannot exhaust the memory: it has no values until its shapes are those of the file.
    with torch.device("meta"), _Uninitialised():
        model = build()
    check_names_and_shapes(model, tensors, source)
    own = {name: tensors[name].to(made.dtype, copy=True) for name, made in model.state_dict().items()}
    model.load_state_dict(own, assign=True)
    return model.eval()


class _Uninitialised(TorchFunctionMode):
    """Models are built without first values for their weights, most of the work of building one."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        values = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else values["tensor"]
        return func(*args, **values)
