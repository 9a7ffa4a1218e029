"""The device that a model computes on, by its name in settings."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # slow to import, and settings need its names alone
    import torch

AUTO = "auto"


def device_of(name: str) -> "torch.device":
    """The device of a name: "cpu", "cuda" or "cuda:1"; "auto" is a GPU that CUDA can use if there is one, or the CPU.

    Raises ValueError if there is no such device.
    """
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if name == AUTO:
        name = "cuda" if gpus else "cpu"
    if name not in ("cpu", *gpus, *["cuda"][: len(gpus)]):
        there = (
            f"there are {', '.join(['cpu', *gpus])}"
            if gpus
            else "there is only cpu, and no GPU that CUDA can use"
        )
        raise ValueError(f"device is {name!r}, but {there}. Name one of these, or auto, which chooses.")
    return torch.device(name)
