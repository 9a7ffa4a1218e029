"""Sums over a large catalogue, estimated from a sample of its items.

Shapes: B histories, S items of the sample.
"""

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def sample_of(items: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """So many of the items, always the same, or all if there are no more; in ascending order."""
    if len(items) <= size:
        return items
    return np.sort(np.random.default_rng(0).choice(items, size, replace=False))


def log_sum(logits_BS: Tensor, n_items: int) -> Tensor:
    """The logarithm of the sum of exponentials over all `n_items`, [B], of which the logits are a sample."""
    return logits_BS.logsumexp(1) - math.log(max(1, logits_BS.shape[1])) + math.log(max(1, n_items))
