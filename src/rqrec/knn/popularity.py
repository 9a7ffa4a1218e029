"""The non-personalised baseline: the most popular items, the same for everyone.

Shapes: N items, B histories.
"""

import numpy as np
import torch
from torch import Tensor

from rqrec.data.sequences import Histories, Sequences


class Popularity:
    """Ranks items by how often they occur in the training sequences; ties by item index."""

    def __init__(self, train: Sequences, n_items: int) -> None:
        counts_N = np.bincount(train.items, minlength=n_items)
        self._counts_N = torch.from_numpy(counts_N).float()

    def score_items(self, histories: Histories) -> Tensor:
        """The count of every item, the same for each history, float32 [B, N]."""
        return self._counts_N.expand(len(histories), -1)
