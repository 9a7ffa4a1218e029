"""Optimizer and schedule, the same for both stages."""

import math

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> AdamW:
    """AdamW (arXiv 1711.05101) that decays matrices only: not biases, norms and other vectors."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    # Fused on a CPU too: one pass over the parameters in place of a dozen.
    return AdamW(
        [group for group in groups if group["params"]], lr=learning_rate, betas=(0.9, 0.98), fused=True
    )


def cosine_with_warmup(optimizer: torch.optim.Optimizer, iterations: int, warmup: int) -> LambdaLR:
    """Linear from 0 over `warmup` steps, then half a cosine down to a tenth at the last step."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, iterations - warmup)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))

    return LambdaLR(optimizer, factor)
