"""Ways to train faster that depend on the machine: mixed precision and compilation, each tried before it is used."""

import copy
import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from rqrec.core.progress import log

PRECISIONS = ("no", "bf16", "fp16", "auto")
GAIN = 1.1  # how many times faster bf16 must be for "auto" to choose it

Loss = Callable[[nn.Module, Any], Tensor]


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Matrix products in `precision` ("no", "bf16" or "fp16") while the block runs."""
    if precision == "no":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def choose_precision(model: nn.Module, loss: Loss, batch: Any, device: torch.device) -> str:
    """ "bf16" where a training step is faster with it on this machine, by a measurement, else "no".

    Where the hardware has no bf16 nothing is measured: emulated, it is many times slower.
    """
    if not has_bf16(device):
        return "no"
    seconds = {name: _seconds(model, loss, batch, name, device) for name in ("no", "bf16")}
    gain = seconds["no"] / seconds["bf16"]
    chosen = "bf16" if gain >= GAIN else "no"
    log(f"A step in bf16 runs {gain:.2f} times as fast as in fp32 here: mixed precision is {chosen!r}.")
    return chosen


def has_bf16(device: torch.device) -> bool:
    """Whether the device may have instructions for products of bf16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return True  # unknown: the measurement says


def compiled(model: nn.Module, loss: Loss, batch: Any, precision: str, device: torch.device) -> nn.Module:
    """The model compiled by torch.compile, or, where that fails on a first step, as it is, with a sentence."""
    try:
        fast: Any = torch.compile(model, dynamic=True)
        _seconds(model, loss, batch, precision, device, repeats=1, run=fast)
    except Exception as error:  # a missing C++ compiler, an operator without a kernel: many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        log(f"torch.compile does not work here ({reason}); training goes on without it.")
        return model
    return fast


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
    """The best time of a forward and a backward pass; leaves the weights and buffers as they were."""
    before = copy.deepcopy(model.state_dict())
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
        model.load_state_dict(before)
        model.zero_grad()
    return min(times[1:] or times)
