"""Fully sharded data parallel training, FSDP (arXiv 2304.11277).

Each process holds a shard of the weights, the gradients and the optimizer state; the weights are gathered for each
step. The whole model is one FSDP unit.
"""

import copy
from collections.abc import Mapping

from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def sharded(model: nn.Module) -> nn.Module:
    """A copy of the model, sharded over all processes."""
    copied = copy.deepcopy(model)
    fully_shard(copied, reshard_after_forward=False)
    return copied


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with sharded ones gathered. A collective: every process must call it with the same names."""
    return {
        name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        for name, tensor in tensors.items()
    }


def sharded_as(tensor: Tensor, parameter: Tensor) -> Tensor:
    """The tensor, sharded like the parameter if that is sharded and has the same shape; else unchanged."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
