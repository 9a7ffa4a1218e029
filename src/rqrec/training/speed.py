"""Mixed precision and compilation: whether they help depends on the machine, so both are tested before use."""

import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from rqrec.core.errors import first_line
from rqrec.core.progress import log

PRECISIONS = ("no", "bf16", "fp16", "auto")
MIN_SPEEDUP = 1.1  # of bf16 over fp32, for "auto" to choose bf16

Loss = Callable[[nn.Module, Any], Tensor]


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """A context that runs matrix products in `precision`: "no", "bf16" or "fp16"."""
    if precision == "no":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def choose_precision(model: nn.Module, loss: Loss, batch: Any, device: torch.device) -> str:
    """ "bf16" if a training step is measurably faster with it on this machine, else "no".

    Hardware without bf16 would emulate it, many times slower: there the result is "no" without a measurement.
    """
    if not has_bf16(device):
        return "no"
    seconds = {name: _seconds(model, loss, batch, name, device) for name in ("no", "bf16")}
    speedup = seconds["no"] / seconds["bf16"]
    chosen = "bf16" if speedup >= MIN_SPEEDUP else "no"
    log(
        f"A training step runs {speedup:.2f} times as fast in bf16 as in fp32 here: mixed precision is {chosen!r}."
    )
    return chosen


def has_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 instructions for matrix products; True if that is unknown."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return True


def compiled(model: nn.Module, loss: Loss, batch: Any, precision: str, device: torch.device) -> nn.Module:
    """The model compiled by torch.compile; if that fails on a first step, the model itself, with a warning."""
    try:
        compiled_model: Any = torch.compile(model, dynamic=True)
        _seconds(model, loss, batch, precision, device, repeats=1, run=compiled_model)
    except Exception as error:  # of many types: no C++ compiler, an operator without a kernel
        reason = first_line(error)
        log(f"torch.compile failed ({reason}); training continues without it.")
        return model
    return compiled_model


def _seconds(
    model: nn.Module,
    loss: Loss,
    batch: Any,
    precision: str,
    device: torch.device,
    *,
    repeats: int = 5,
    run: nn.Module | None = None,
) -> float:
    """The shortest time of a forward and a backward pass, in seconds; weights and buffers are restored."""
    before = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    times = []
    try:
        for _ in range(repeats + 1):  # the first one warms up
            start = time.perf_counter()
            with autocast(precision, device):
                value = loss(model if run is None else run, batch)
            value.backward()
            value.item()  # waits for the device
            times.append(time.perf_counter() - start)
    finally:
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)
        model.zero_grad()
    return min(times[1:] or times)
