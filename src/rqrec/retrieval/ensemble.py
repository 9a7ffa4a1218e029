"""Experts joined in item space: one list of candidates, of which every expert says how probable each item is.

Trained experts are joined by a product of their probabilities, each to a power of its own (a product of experts:
G. Hinton, Neural Computation 14, 2002), so that an item must convince all of them. Neighbours know nothing of most
items and would forbid them in a product: they are mixed in, as kNN-LM mixes a language model with the nearest
training contexts (U. Khandelwal et al., arXiv 1911.00172, equation 3):

    p_trained(item) ~ prod over e of p_e(item)^power_e
    p(item) = (1 - share) x p_trained(item) + share x p_neighbours(item)^power / Z

All distributions are conditioned on the same items, the candidates that some expert proposes, so that a share is what
the neighbours have in fact. Powers and share are chosen on validation (`rqrec.training.fit_ensemble`).

Shapes: B histories, C candidates, N items of the catalogue.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rqrec.core.values import Config, Fraction, PositiveFloat
from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
from rqrec.retrieval.beam_search import rank_by_quota
from rqrec.retrieval.experts import Constraints, Expert, first_codes
from rqrec.retrieval.ranking import Ranked, order_keys, padded, padded_scores

# Items that each expert proposes. An item that no expert ranks so high hardly ever ends among the first ten, while
# every candidate must be scored by every expert (docs/experiments.md).
PROPOSALS = 30
UNCONSTRAINED = Constraints()
LAST = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class ExpertSettings(Config):
    """How an expert's probabilities enter the joint ones.

    Raises ValueError on values out of range.
    """

    power: PositiveFloat = 1.0
    """The power of its probabilities, above 0: above 1 it insists, below 1 it yields."""
    share: Fraction | None = None
    """None: a factor of the product. Between 0 and 1: mixed in with this share of the probability."""


class Candidates(NamedTuple):
    """The items that the experts propose, each once, with what every expert says of them."""

    items_BC: Tensor
    """Item indices int64 in ascending order, padded with PADDING on the right."""
    log_p: Mapping[str, Tensor]
    """By expert: log-probabilities float32 [B, C], not conditioned on the candidates; minus infinity at padding."""
    proposals: Mapping[str, Ranked]
    """By expert: the items that it proposes."""

    def only(self, names: Sequence[str]) -> "Candidates":
        """What some of the experts propose and say; the proposals of others become padding."""
        items_BC = _union([self.proposals[name] for name in names])
        at_BC = torch.searchsorted(_padding_last(self.items_BC), _padding_last(items_BC))
        at_BC.clamp_(max=max(0, self.items_BC.shape[1] - 1))
        is_padding_BC = items_BC == PADDING
        log_p = {
            name: self.log_p[name].gather(1, at_BC).masked_fill(is_padding_BC, -torch.inf) for name in names
        }
        return Candidates(items_BC, log_p, {name: self.proposals[name] for name in names})

    def joined(self, settings: Mapping[str, ExpertSettings]) -> Tensor:
        """Joint log-probabilities among the candidates, float32 [B, C]; minus infinity at padding."""
        return join({name: self.log_p[name] for name in settings}, settings)


def join(log_p: Mapping[str, Tensor], settings: Mapping[str, ExpertSettings]) -> Tensor:
    """Joint log-probabilities, from each expert's log-probabilities of the same candidates, [..., C]."""
    factors = [one.power * log_p[name] for name, one in settings.items() if one.share is None]
    parts, left = [], torch.ones(())
    for name, one in settings.items():
        if one.share is not None:
            log_p_C = _normalised(one.power * log_p[name])
            share = one.share * log_p_C.isfinite().any(
                -1, keepdim=True
            )  # 0 if it knows none of the candidates
            parts.append(share.log() + log_p_C)
            left = left - share
    if factors:
        parts.append(left.log() + _normalised(torch.stack(factors).sum(0)))
    return _normalised(torch.stack(parts).logsumexp(0))


def _normalised(log_p_C: Tensor) -> Tensor:
    """Log-probabilities conditioned on the candidates; rows without a possible one stay at minus infinity."""
    return log_p_C - log_p_C.logsumexp(-1, keepdim=True).nan_to_num(neginf=0.0)


@dataclass(frozen=True)
class Ensemble:
    """Recommends what its experts find most probable together. One expert recommends by itself.

    Raises ValueError if there is no expert, or one without settings.
    """

    experts: Mapping[str, Expert]
    settings: Mapping[str, ExpertSettings]
    width: int
    """Items that each expert proposes, or the length of the list if that is more."""
    first_codes_N: Tensor | None = None
    """The first code of each item, int64, for `max_per_code`."""
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if not self.experts or self.experts.keys() - self.settings.keys():
            raise ValueError(
                f"The experts are {sorted(self.experts)}, and there are settings of {sorted(self.settings)}: give at "
                f"least one expert, and settings of each."
            )

    def only(self, names: Sequence[str]) -> "Ensemble":
        """The ensemble of some of its experts."""
        return replace(self, experts={name: self.experts[name] for name in names})

    @torch.inference_mode()
    def recommend(
        self,
        histories: Histories,
        k: int,
        *,
        exclude_seen: bool = True,
        allowed_N: NDArray[np.bool_] | None = None,
        max_per_code: int | None = None,
    ) -> Ranked:
        """The k most probable next items of each history.

        A score is the log-probability among the candidates; that of a single expert is its own log-probability.
        `exclude_seen` excludes the items of each history. `allowed_N` (bool, by item index) restricts the items that
        may be recommended; `max_per_code` limits how many may share their first code.
        """
        allowed = None if allowed_N is None else torch.from_numpy(allowed_N).to(self.device)
        constraints = Constraints(exclude_seen, allowed, max_per_code)
        if len(self.experts) == 1:
            ((name, expert),) = self.experts.items()
            items_BK, scores_BK, _ = expert.propose(histories, k, constraints).ranked
            return Ranked(items_BK, scores_BK, {name: scores_BK})
        return self._ranked(self.candidates(histories, k, constraints), k, max_per_code)

    @torch.inference_mode()
    def recommend_parts(
        self, histories: Histories, k: int, parts: Sequence[Sequence[str]], *, exclude_seen: bool = True
    ) -> list[Ranked]:
        """What `only` of each of these parts would recommend, for the cost of the whole: they share the search."""
        found = self.candidates(histories, k, Constraints(exclude_seen))
        ranked = []
        for names in parts:
            if len(names) == 1:
                items_BK, scores_BK, _ = found.proposals[names[0]]
                ranked.append(Ranked(items_BK[:, :k], scores_BK[:, :k], {names[0]: scores_BK[:, :k]}))
            else:
                ranked.append(self._ranked(found.only(names), k, None))
        return ranked

    def _ranked(self, found: Candidates, k: int, max_per_code: int | None) -> Ranked:
        log_p_BC = found.joined({name: self.settings[name] for name in found.log_p})
        ties_BC = found.items_BC.clamp(min=0)
        if max_per_code is None:
            best_BC = order_keys(log_p_BC, ties_BC).argsort(dim=1, descending=True)
        else:
            first_codes_BC = first_codes(self.first_codes_N)[ties_BC]
            best_BC, over_BC = rank_by_quota(log_p_BC, ties_BC, first_codes_BC, max_per_code)
            log_p_BC = log_p_BC.masked_fill(over_BC, -torch.inf)
        items_BK, scores_BK, _ = padded(found.items_BC.gather(1, best_BC), log_p_BC.gather(1, best_BC), k)
        said = {name: padded_scores(log_p.gather(1, best_BC), k) for name, log_p in found.log_p.items()}
        return Ranked(items_BK, scores_BK, said)

    def candidates(
        self, histories: Histories, k: int, constraints: Constraints = UNCONSTRAINED
    ) -> Candidates:
        """The items of all proposals for lists of k items, with what every expert says of them."""
        # With a quota of first codes, an expert's list is limited to it, and a longer one would have to be cut again.
        width = max(k, self.width) if constraints.max_per_code is None else k
        proposals = {
            name: expert.propose(histories, width, constraints) for name, expert in self.experts.items()
        }
        ranked = {name: proposal.ranked for name, proposal in proposals.items()}
        items_BC = _union(list(ranked.values()))
        is_padding_BC = items_BC == PADDING
        return Candidates(
            items_BC,
            {
                name: proposal.log_probs(items_BC).masked_fill(is_padding_BC, -torch.inf)
                for name, proposal in proposals.items()
            },
            ranked,
        )


def _union(proposals: Sequence[Ranked]) -> Tensor:
    """Each proposed item of a row once, in ascending order, padded on the right with PADDING, int64 [B, C]."""
    items_BM = _padding_last(torch.cat([ranked.items for ranked in proposals], dim=1)).sort(dim=1).values
    repeated_BM = torch.zeros_like(items_BM, dtype=torch.bool)
    repeated_BM[:, 1:] = items_BM[:, 1:] == items_BM[:, :-1]
    items_BM = items_BM.masked_fill(repeated_BM, LAST).sort(dim=1).values
    width = int((items_BM != LAST).sum(1).max()) if items_BM.numel() else 0
    return items_BM[:, :width].masked_fill(items_BM[:, :width] == LAST, PADDING)


def _padding_last(items_BM: Tensor) -> Tensor:
    """Items, with an index in place of padding that sorts behind all others."""
    return items_BM.masked_fill(items_BM == PADDING, LAST)
