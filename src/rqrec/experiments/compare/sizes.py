"""Equal parameters and equal compute: the width of a model, and the number of its training steps.

Compute is counted, not timed: the floating-point operations of all matrix products of a training step, forward
and backward. That number does not depend on the machine or on its load.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rqrec.experiments.compare.config import SizeConfig
from rqrec.models.architectures import AnyModel, architecture, build_model
from rqrec.models.retrieval_model import Batch, ModelConfig, parameter_count
from rqrec.tokenizer.trie import Trie

MAX_WIDTH = 4096  # of a transformer
TERA = 1e12


def config_with_parameters(name: str, level_sizes: tuple[int, ...], sizes: SizeConfig) -> ModelConfig:
    """The config of an architecture with the width whose parameter count is nearest to `sizes.parameters`.

    Raises ValueError if that count differs by more than the tolerance.
    """
    of_width = partial(_config, name, level_sizes, sizes)
    widths = range(sizes.attn_heads, MAX_WIDTH, sizes.attn_heads)
    above = bisect_left(widths, sizes.parameters, key=lambda width: parameters_of(of_width(width)))
    candidates = [of_width(width) for width in widths[max(above - 1, 0) : above + 1]]
    nearest = min(candidates, key=lambda config: abs(parameters_of(config) - sizes.parameters))
    parameters = parameters_of(nearest)
    if abs(parameters - sizes.parameters) > sizes.tolerance * sizes.parameters:
        raise ValueError(
            f"{name} has {parameters:,} parameters at the nearest width, {nearest.attn_embed_dim}, but "
            f"compare.parameters is {sizes.parameters:,} and compare.tolerance only {sizes.tolerance}. Change "
            f"compare.parameters, lower compare.attn_heads or compare.attn_layers, or raise the tolerance."
        )
    return nearest


def _config(name: str, level_sizes: tuple[int, ...], sizes: SizeConfig, width: int) -> ModelConfig:
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
    """Number of trained parameters of a model, without allocating its tensors."""
    with torch.device("meta"):
        return parameter_count(build_model(config))


def step_flops(model: AnyModel, trie: Trie, batches: Sequence[Batch]) -> Callable[[Batch], float]:
    """A function that gives the floating-point operations of a training step on any batch.

    They are a linear combination of the batch's B rows, B x T items (padding included), B x T^2 pairs of items,
    number of real items, and number of targets that have a choice at each level. The coefficients are fitted to the
    operations counted on `batches`; the fit is exact, so it holds for every other batch too.
    """

    def terms(batch: Batch) -> NDArray[np.float64]:
        rows, items, _ = batch.codes_BTL.shape
        choices = [len(choice.rows_R) for choice in model.choices(batch, trie)]
        return np.array([rows, rows * items, rows * items**2, float(batch.lengths_B.sum()), *choices])

    counted = []
    model.train()
    # The counter misses the fused attention kernel of the CPU, but counts the operations of the plain one.
    with sdpa_kernel(SDPBackend.MATH):
        for batch in batches:
            with FlopCounterMode(display=False) as counter:
                model(batch, trie).total.backward()
            counted.append(float(counter.get_total_flops()))
    model.zero_grad()
    costs, *_ = np.linalg.lstsq(np.array([terms(batch) for batch in batches]), np.array(counted))
    return lambda batch: float(terms(batch) @ costs)


class Budget(NamedTuple):
    """The training steps that a compute budget pays for."""

    iterations: int
    teraflops: float
    """10^12 floating-point operations of these steps."""


def steps_within(teraflops: float, flops: Iterable[float]) -> Budget:
    """The number of steps whose operations, given by `flops` in order, add up nearest to `teraflops`.

    Raises ValueError if the first step alone takes more than twice the budget.
    """
    spent, iterations = 0.0, 0
    for iterations, step in enumerate(flops):
        if spent + step / 2 > teraflops * TERA:
            if iterations == 0:
                raise ValueError(
                    f"compare.teraflops={teraflops} does not pay for one step, which takes {step / TERA:.3g}: "
                    f"raise it, or lower compare.batch_size or compare.parameters."
                )
            break
        spent += step
    return Budget(iterations, spent / TERA)
