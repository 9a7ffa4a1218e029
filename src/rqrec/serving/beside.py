"""Which items of a history stand beside an item: those that share its first codes, and whose codes are close to its.

Shapes: K items, T items of a history, L levels, V codes of a level, D width.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rqrec.models.layers import CodeEmbedding


class Near(NamedTuple):
    """An item of a history near another item."""

    item: int
    """Item index."""
    shared: int
    """Number of leading codes that both have."""
    closeness: float
    """Of their codes, 0 to 1: see `rqrec.retrieval.similar.similar_items`."""


@torch.inference_mode()
def beside(
    embedding: CodeEmbedding,
    codes_NL: Tensor,
    items_K: NDArray[np.int64],
    history_T: NDArray[np.int64],
    count: int,
    *,
    content_levels: int,
) -> list[list[Near]]:
    """For each of K items the `count` distinct items of a history nearest to it, nearest first, without itself.

    Nearest are those with the most leading codes in common, and among them those with the closest codes.
    """
    history_U = np.unique(history_T)
    if not len(history_U):
        return [[] for _ in items_K]
    codes_KL, codes_UL = codes_NL[items_K], codes_NL[history_U]
    shared_KU = (codes_KL[:, None] == codes_UL).long().cumprod(dim=2).sum(dim=2)
    cosines = []
    for level in range(content_levels):
        rows_VD = embedding.rows(level)
        own_KD = functional.normalize(rows_VD[codes_KL[:, level]], dim=1)
        cosines.append(own_KD @ functional.normalize(rows_VD[codes_UL[:, level]], dim=1).T)
    closeness_KU = (1 + torch.stack(cosines).mean(dim=0)).clamp(0, 2) / 2
    scores_KU = (shared_KU + closeness_KU).numpy(force=True)
    scores_KU[items_K[:, None] == history_U] = -np.inf
    nearest_KC = np.argsort(-scores_KU, axis=1, kind="stable")[:, :count]
    return [
        [
            Near(int(history_U[u]), int(shared_KU[k, u]), float(closeness_KU[k, u]))
            for u in nearest_C
            if history_U[u] != items_K[k]
        ]
        for k, nearest_C in enumerate(nearest_KC)
    ]
