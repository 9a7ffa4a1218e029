"""The sizes of a computation's tensors, which bound its memory."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Sizes(TorchDispatchMode):
    largest = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        self.largest = max([self.largest, *sizes])
        return made


def largest_tensor(compute: Callable[[], Any]) -> int:
    """The number of elements of the largest tensor that the computation makes."""
    with _Sizes() as sizes:
        compute()
    return sizes.largest


def saved_bytes(compute: Callable[[], Any]) -> int:
    """Bytes that the forward pass saves for the backward pass, each tensor once."""
    saved: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(save, lambda tensor: tensor):
        made = compute()
        assert made is not None  # alive until all are counted, so that no two have the same address
    return sum(saved.values())
