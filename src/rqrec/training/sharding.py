"""Fully sharded data parallel training, FSDP (arXiv 2304.11277).

Each process holds a shard of the weights, the gradients and the optimizer state; the weights are gathered for each
step. The whole model is one FSDP unit.
"""

import copy
import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

# torch's modules for this take a second to import, and are imported where a model is sharded.


def sharded(model: nn.Module) -> nn.Module:
    """A copy of the model, sharded over all processes."""
    from torch.distributed.fsdp import fully_shard

    copied = copy.deepcopy(model)
    fully_shard(copied, reshard_after_forward=False)
    return copied


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with sharded ones gathered. A collective: every process must call it with the same names."""
    return {
        name: tensor if (shard := _as_sharded(tensor)) is None else shard.full_tensor()
        for name, tensor in tensors.items()
    }


def sharded_as(tensor: Tensor, parameter: Tensor) -> Tensor:
    """The tensor, sharded like the parameter if that is sharded and has the same shape; else unchanged."""
    shard = _as_sharded(parameter)
    if shard is None or tensor.shape != parameter.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(parameter.device), shard.device_mesh, shard.placements)


def _as_sharded(tensor: Tensor) -> Any:
    """The tensor if it is a DTensor, else None."""
    module = sys.modules.get("torch.distributed.tensor")
    return tensor if module is not None and isinstance(tensor, module.DTensor) else None
