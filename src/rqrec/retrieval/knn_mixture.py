"""A model and a kNN index joined in item space, as in kNN-LM.

A transformer does not memorise pairs of items that it saw only a few times, and most items of a catalogue occur only
in such pairs. So the model is mixed with the nearest neighbours of the history's items, as kNN-LM mixes a language
model with the nearest training contexts (U. Khandelwal et al., arXiv 1911.00172, equation 3):

    p(item | history) = (1 - weight) x p_model(item | history) + weight x p_knn(item | history)

Each side proposes candidates among the items that may be recommended: the model those of its beam, the index its
nearest neighbours. The model scores the index's candidates too. Both distributions are then conditioned on the same
items, the candidates of either side, so that the weight is the share that the neighbours have in fact.

Shapes: B histories, K items of the beam, M neighbours, C candidates (K + M).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rqrec.data.ids import PADDING
from rqrec.knn.index import Candidates as Neighbours
from rqrec.knn.index import p_knn
from rqrec.retrieval.ranking import Ranked


class Candidates(NamedTuple):
    """The items that either side proposes, each once, with what both say of them."""

    items_BC: Tensor
    """Item indices int64, padded with PADDING anywhere in a row."""
    log_p_model_BC: Tensor
    """The model's log-probability of each item, float32, not conditioned; minus infinity at padding."""
    knn_scores_BC: Tensor
    """The index's score of each item, float32; 0 for items that it does not propose, and at padding."""

    @classmethod
    def of(cls, beam: Ranked, neighbours: Neighbours, log_p_neighbours_BM: Tensor) -> "Candidates":
        """Join a beam and neighbours; `log_p_neighbours_BM` is the model's log-probability of the neighbours."""
        is_real_BK1 = (beam.items != PADDING)[:, :, None]
        same_BKM = (beam.items[:, :, None] == neighbours.items_BM[:, None]) & is_real_BK1
        in_beam_BM = same_BKM.any(1)
        beam_scores_BK = (same_BKM * neighbours.scores_BM[:, None]).sum(2)
        items_BM = neighbours.items_BM.masked_fill(in_beam_BM, PADDING)
        items_BC = torch.cat([beam.items, items_BM], dim=1)
        log_p_BC = torch.cat([beam.scores, log_p_neighbours_BM], dim=1)
        return cls(
            items_BC,
            log_p_BC.masked_fill(items_BC == PADDING, -torch.inf),
            torch.cat([beam_scores_BK, neighbours.scores_BM.masked_fill(in_beam_BM, 0.0)], dim=1),
        )

    def log_p_mixture(self, weight: float, power: float) -> Tensor:
        """Log-probabilities of the mixture among the candidates, float32 [B, C]; minus infinity at padding.

        For a history without neighbours, only the model is used.
        """
        p_knn_BC = p_knn(self.knn_scores_BC, power)
        weight_B1 = weight * p_knn_BC.any(1, keepdim=True)
        # A row without any candidate stays at minus infinity.
        total_B1 = self.log_p_model_BC.logsumexp(1, keepdim=True).nan_to_num(neginf=0.0)
        log_p_model_BC = self.log_p_model_BC - total_B1
        return torch.logaddexp(log_p_model_BC + torch.log1p(-weight_B1), torch.log(weight_B1 * p_knn_BC))
