"""A model of which each process has a share: fully sharded data parallel training (arXiv 2304.11277).

Weights, gradients and the optimizer's state are divided; the weights are put together for each step. The model is
one unit: between steps a process holds its share of all three.
"""

import copy
from collections.abc import Mapping

from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def sharded(model: nn.Module) -> nn.Module:
    """A copy of the model, divided among all processes."""
    copied = copy.deepcopy(model)
    fully_shard(copied, reshard_after_forward=False)
    return copied


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, put together where they are divided: every process must call this, with the same names."""
    return {
        name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        for name, tensor in tensors.items()
    }


def sharded_as(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor divided as a parameter of its shape is; any other tensor, and of a whole one, as it is."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
