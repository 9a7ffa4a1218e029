"""The baseline that knows no user: what most people took, to everyone."""

import numpy as np
import torch

from rqrec.data.sequences import Histories, Sequences
from rqrec.retrieval.beam_search import Ranked, rank_scores


class Popularity:
    """Ranks items by how often they occur in the training sequences; ties by item index."""

    def __init__(self, train: Sequences, n_items: int) -> None:
        counts_N = np.bincount(train.items, minlength=n_items)
        self._counts_N = torch.from_numpy(counts_N).float()

    def recommend(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> Ranked:
        """The k most frequent items for each history; a score is a count."""
        scores_BN = self._counts_N.expand(len(histories), -1)
        excluded_BX = torch.from_numpy(histories.items_BT) if exclude_seen else None
        return rank_scores(scores_BN, k, excluded_BX=excluded_BX)
