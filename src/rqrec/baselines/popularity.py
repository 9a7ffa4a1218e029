"""The baseline that knows no user: what most people took, to everyone."""

import numpy as np
import torch
from numpy.typing import NDArray

from rqrec.data.sequences import Sequences
from rqrec.retrieval.beam_search import Ranked, rank_scores


class Popularity:
    """Ranks items by how often they occur in the training sequences; ties by item index."""

    def __init__(self, train: Sequences, n_items: int) -> None:
        counts_N = np.bincount(train.items, minlength=n_items)
        self._counts_N = torch.from_numpy(counts_N).float()

    def recommend(self, items_BT: NDArray[np.int64], k: int, *, exclude_seen: bool = True) -> Ranked:
        """The k most frequent items for each history; a score is a count."""
        scores_BN = self._counts_N.expand(len(items_BT), -1)
        excluded_BX = torch.from_numpy(items_BT) if exclude_seen else None
        return rank_scores(scores_BN, k, excluded_BX=excluded_BX)
