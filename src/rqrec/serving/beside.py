"""Which items of a history stand beside an item: those that share its first codes, and whose codes are close to its.

Shapes: K items, T items of a history, U of them distinct, N items of the catalogue, L levels, C nearest of each.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rqrec.data.ids import PADDING
from rqrec.models.layers import CodeEmbedding
from rqrec.retrieval.ranking import rank_scores
from rqrec.retrieval.similar import nearness


class Near(NamedTuple):
    """An item of a history near another item."""

    item: int
    """Item index."""
    shared: int
    """Number of leading codes that both have."""
    closeness: float
    """Of their codes, 0 to 1: see `rqrec.retrieval.similar.nearness`."""


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
    shared_KU, closeness_KU = nearness(embedding, codes_NL[items_K], codes_NL[history_U], content_levels)
    items_1U = torch.from_numpy(history_U).to(shared_KU.device)[None]
    own_KU = torch.from_numpy(items_K).to(shared_KU.device)[:, None] == items_1U
    nearest_KC = rank_scores((shared_KU + closeness_KU).masked_fill(own_KU, -torch.inf), count).items
    columns_KC = nearest_KC.clamp(min=0)
    found = zip(
        history_U[columns_KC.numpy(force=True)].tolist(),
        shared_KU.gather(1, columns_KC).tolist(),
        closeness_KU.gather(1, columns_KC).tolist(),
        (nearest_KC != PADDING).sum(1).tolist(),
        strict=True,
    )
    return [list(map(Near, items[:n], shared[:n], closeness[:n])) for items, shared, closeness, n in found]
