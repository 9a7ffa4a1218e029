"""The feed-forward layer of a transformer, without storing its hidden units.

They are by far the largest tensors of a step: four times as wide as the others, and stored twice, before and after
the GELU. On a CPU they are computed for a block of positions at a time, in a buffer that stays in the cache, and once
more in the backward pass: one product more, and far less memory.

Shapes: P positions, D width, H hidden units, R positions of a block.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

BLOCK = 2**19  # number of hidden units in a block


class FeedForward(nn.Sequential):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.hidden = hidden

    def forward(self, x: Tensor) -> Tensor:
        """From [..., D] to [..., D]."""
        # On a GPU memory is fast, torch.compile makes its own blocks, and autocast chooses each layer's precision.
        if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
            out: Tensor = super().forward(x)
            return out
        x_PD = x.reshape(-1, x.shape[-1])
        if len(x_PD) <= _rows(self.hidden) and not torch.is_grad_enabled():  # nothing to cut or to keep
            plain: Tensor = super().forward(x)
            return plain
        out = _Blockwise.apply(x_PD, *self.parameters())
        return out.view(x.shape)


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_PD: Tensor, in_HD: Tensor, in_H: Tensor, out_DH: Tensor, out_D: Tensor) -> Tensor:
        y_PD = torch.empty_like(x_PD)
        rows = _rows(len(in_HD))
        (buffer_RH,) = _buffers(1, x_PD, rows, len(in_HD))
        for block in _blocks(len(x_PD), rows):
            hidden_RH = torch.addmm(in_H, x_PD[block], in_HD.T, out=buffer_RH[: len(x_PD[block])])
            torch.ops.aten.gelu.out(hidden_RH, out=hidden_RH)
            torch.addmm(out_D, hidden_RH, out_DH.T, out=y_PD[block])
        ctx.save_for_backward(x_PD, in_HD, in_H, out_DH)
        return y_PD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y_PD: Tensor) -> tuple[Tensor, ...]:
        x_PD, in_HD, in_H, out_DH = ctx.saved_tensors
        grad_x_PD, grad_in_HD = torch.empty_like(x_PD), torch.zeros_like(in_HD)
        grad_in_H, grad_out_DH = torch.zeros_like(in_H), torch.zeros_like(out_DH)
        rows = _rows(len(in_HD))
        buffers = _buffers(3, x_PD, rows, len(in_HD))
        for block in _blocks(len(x_PD), rows):
            x_RD, grad_y_RD = x_PD[block], grad_y_PD[block]
            hidden_RH, active_RH, grad_RH = (buffer_RH[: len(x_RD)] for buffer_RH in buffers)
            torch.addmm(in_H, x_RD, in_HD.T, out=hidden_RH)
            torch.ops.aten.gelu.out(hidden_RH, out=active_RH)
            grad_out_DH.addmm_(grad_y_RD.T, active_RH)
            torch.mm(grad_y_RD, out_DH, out=grad_RH)
            torch.ops.aten.gelu_backward.grad_input(grad_RH, hidden_RH, grad_input=grad_RH)
            grad_in_HD.addmm_(grad_RH.T, x_RD)
            grad_in_H.add_(grad_RH.sum(0))
            torch.mm(grad_RH, in_HD, out=grad_x_PD[block])
        return grad_x_PD, grad_in_HD, grad_in_H, grad_out_DH, grad_y_PD.sum(0)


def _rows(hidden: int) -> int:
    return max(1, BLOCK // hidden)


def _blocks(positions: int, rows: int) -> Iterator[slice]:
    for start in range(0, positions, rows):
        yield slice(start, start + rows)


def _buffers(count: int, like_PD: Tensor, rows: int, hidden: int) -> list[Tensor]:
    return [like_PD.new_empty(min(rows, len(like_PD)), hidden) for _ in range(count)]
