"""Equal parameters and equal compute: how wide a model is, and how long it trains.

Compute is counted, not timed: the floating-point operations of the matrix products of a training step, forward
and backward. It is the same on every machine, whatever else runs there.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rqrec.models.architectures import AnyModel, architecture, build_model
from rqrec.models.retrieval_model import Batch, ModelConfig, parameter_count

WIDEST = 4096  # of a transformer
TERA = 1e12


@dataclass(frozen=True)
class Sizes:
    """What the models of a comparison have in common.

    parameters: trained numbers of a model, those of code embeddings included
    tolerance: how far from that a model may be, as a share of it
    teraflops: 10^12 floating-point operations of training
    max_items: items of history that are read
    attn_heads, attn_dropout: of every transformer
    attn_layers: depth by the name of the architecture; the widths follow from `parameters`
    """

    parameters: int
    tolerance: float
    teraflops: float
    max_items: int
    attn_heads: int
    attn_dropout: float
    attn_layers: Mapping[str, int]

    def __post_init__(self) -> None:
        for name in ("parameters", "teraflops", "tolerance"):
            if getattr(self, name) <= 0:
                raise ValueError(f"compare.{name} is {getattr(self, name)}, but must be above 0.")
        for name in self.attn_layers:
            architecture(name)


def sized(name: str, level_sizes: tuple[int, ...], sizes: Sizes) -> ModelConfig:
    """The model of an architecture whose number of parameters is nearest to the one that is asked for.

    Raises ValueError where it is further away than the tolerance.
    """
    if name not in sizes.attn_layers:
        raise ValueError(f"compare.attn_layers has no depth for {name!r}: add one.")
    of_width = partial(_config, name, level_sizes, sizes)
    widths = range(sizes.attn_heads, WIDEST, sizes.attn_heads)
    above = bisect_left(widths, sizes.parameters, key=lambda width: parameters_of(of_width(width)))
    around = [of_width(width) for width in widths[max(above - 1, 0) : above + 1]]
    nearest = min(around, key=lambda config: abs(parameters_of(config) - sizes.parameters))
    found = parameters_of(nearest)
    if abs(found - sizes.parameters) > sizes.tolerance * sizes.parameters:
        raise ValueError(
            f"{name} comes no nearer to {sizes.parameters:,} parameters than {found:,} (width "
            f"{nearest.attn_embed_dim}), which is more than compare.tolerance={sizes.tolerance} away. Choose "
            f"other compare.parameters, fewer compare.attn_heads or compare.attn_layers, or more tolerance."
        )
    return nearest


def _config(name: str, level_sizes: tuple[int, ...], sizes: Sizes, width: int) -> ModelConfig:
    return architecture(name).config(
        level_sizes=level_sizes,
        max_items=sizes.max_items,
        decoder_embed_dim=width,
        attn_embed_dim=width,
        attn_heads=sizes.attn_heads,
        attn_layers=sizes.attn_layers[name],
        attn_dropout=sizes.attn_dropout,
    )


def parameters_of(config: ModelConfig) -> int:
    """Trained parameters of a model, without making its tensors."""
    with torch.device("meta"):
        return parameter_count(build_model(config))


def step_flops(model: AnyModel, batches: Sequence[Batch]) -> Callable[[Batch], float]:
    """Floating-point operations of a training step on a batch, worked out from those counted on some.

    They are a sum of terms in the batch's B rows, B x T items with padding, B x T^2 pairs of items, and real
    items: what each costs follows from a few batches, and is exact for all others.
    """
    counted = []
    model.train()
    # The fused attention of a CPU is not counted; its parts are.
    with sdpa_kernel(SDPBackend.MATH):
        for batch in batches:
            with FlopCounterMode(display=False) as counter:
                model(batch).total.backward()
            counted.append(float(counter.get_total_flops()))
    model.zero_grad()
    costs, *_ = np.linalg.lstsq(np.array([_terms(batch) for batch in batches]), np.array(counted))
    return lambda batch: float(_terms(batch) @ costs)


def _terms(batch: Batch) -> NDArray[np.float64]:
    rows, items, _ = batch.codes_BTL.shape
    return np.array([rows, rows * items, rows * items**2, float(batch.lengths_B.sum())])


class Budget(NamedTuple):
    """Training steps, and the 10^12 operations that they take."""

    iterations: int
    teraflops: float


def steps_within(teraflops: float, flops: Iterable[float]) -> Budget:
    """The steps whose operations, one after the other, come nearest to a budget.

    Raises ValueError where the first one is more than twice the budget.
    """
    spent, iterations = 0.0, 0
    for iterations, step in enumerate(flops):
        if spent + step / 2 > teraflops * TERA:
            if iterations == 0:
                raise ValueError(
                    f"compare.teraflops={teraflops} does not pay for one step of {step / TERA:.3g}: raise it, "
                    f"or lower compare.batch_size or compare.parameters."
                )
            break
        spent += step
    return Budget(iterations, spent / TERA)
