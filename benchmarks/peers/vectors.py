"""What the adapters of RQ-VAEs share: standardised batches, and MLPs for quantisers that have none."""

from collections.abc import Iterator

import torch
from adapter import HIDDEN, LATENT, TOKENIZER_BATCH, TOKENIZER_STEPS
from torch import nn


class Standardised:
    """Vectors of mean 0 per dimension and mean variance 1, as our own RQ-VAE gets them, and the way back."""

    def __init__(self, vectors_ND: torch.Tensor) -> None:
        self.mean_D = vectors_ND.mean(dim=0)
        self.scale = (vectors_ND - self.mean_D).square().mean().sqrt()
        self.x_ND = (vectors_ND - self.mean_D) / self.scale

    def restored(self, x_ND: torch.Tensor) -> torch.Tensor:
        return x_ND * self.scale + self.mean_D

    def batches(self) -> Iterator[torch.Tensor]:
        """TOKENIZER_STEPS random batches."""
        generator = torch.Generator().manual_seed(0)
        for _ in range(TOKENIZER_STEPS):
            yield self.x_ND[torch.randint(len(self.x_ND), (TOKENIZER_BATCH,), generator=generator)]

    @property
    def epochs(self) -> int:
        """As many epochs as TOKENIZER_STEPS, for those that count epochs."""
        return round(TOKENIZER_STEPS * TOKENIZER_BATCH / len(self.x_ND))


def mlp(width: int, *, reverse: bool = False) -> nn.Sequential:
    """From `width` to the latent width, or back."""
    widths = [width, *HIDDEN, LATENT]
    layers: list[nn.Module] = []
    for inputs, outputs in zip(
        *((widths[::-1][:-1], widths[::-1][1:]) if reverse else (widths[:-1], widths[1:])), strict=True
    ):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
