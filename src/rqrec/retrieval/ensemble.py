"""Experts joined in item space: one list of candidates, of which every expert says how probable each item is.

Trained experts are joined by a product of their probabilities, each to a power of its own (a product of experts:
G. Hinton, Neural Computation 14, 2002), so that an item must convince all of them. Neighbours know nothing of most
items and would forbid them in a product: they are mixed in, as kNN-LM mixes a language model with the nearest
training contexts (U. Khandelwal et al., arXiv 1911.00172, equation 3):

    p_trained(item) ~ prod over e of p_e(item)^power_e
    p(item) = (1 - share) x p_trained(item) + share x p_neighbours(item)^power / Z

All distributions are conditioned on the same items, the candidates that some expert proposes, so that a share is what
the neighbours have in fact. Powers and share are chosen on validation (`rqrec.training.fit_ensemble`).

Shapes: B histories, M items of some lists, C candidates, K items of a list, N items of the catalogue.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rqrec.core.pausing import pause
from rqrec.core.values import Config, Fraction, PositiveFloat
from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
from rqrec.retrieval.constraints import Constraints, ItemRules, Limit, best_of, in_full_groups
from rqrec.retrieval.experts import CodesExpert, Expert, NeighbourExpert, Proposal, alone, boosted
from rqrec.retrieval.ranking import Ranked

# Items that each expert proposes. An item that no expert ranks so high hardly ever ends among the first ten, while
# every candidate must be scored by every expert (docs/experiments.md).
PROPOSALS = 30
UNCONSTRAINED, NO_RULES = Constraints(), ItemRules()
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
        items_BC = _union([self.proposals[name].items for name in names])
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
    device: torch.device | str = "cpu"
    """Where the experts are, and the tensors of rules must be."""

    def __post_init__(self) -> None:
        if not self.experts or self.experts.keys() - self.settings.keys():
            raise ValueError(
                f"The experts are {sorted(self.experts)}, and there are settings of {sorted(self.settings)}: give at "
                f"least one expert, and settings of each."
            )

    def only(self, names: Sequence[str]) -> "Ensemble":
        """The ensemble of some of its experts."""
        return replace(self, experts={name: self.experts[name] for name in names})

    @property
    def _asked(self) -> Mapping[str, Expert]:
        if len(self.experts) > 1:
            return self.experts
        return {name: alone(expert) for name, expert in self.experts.items()}

    @torch.inference_mode()
    def recommend(
        self, histories: Histories, k: int, *, exclude_seen: bool = True, rules: ItemRules = NO_RULES
    ) -> Ranked:
        """The k most probable next items of each history.

        A score is the log-probability among the candidates, plus the item's boost; that of a single expert is its own
        log-probability, plus the boost. `exclude_seen` excludes the items of each history.
        """
        constraints = Constraints(exclude_seen, rules.allowed_N, rules.boost_N)
        if len(self.experts) == 1 and not rules.limits:
            ((name, expert),) = self._asked.items()
            items_BK, scores_BK, _ = expert.propose(histories, k, constraints).ranked
            boost_N = None if rules.boost_N is None else -rules.boost_N
            return Ranked(items_BK, scores_BK, {name: boosted(scores_BK, boost_N, items_BK)})
        width = max(k, self.width)
        proposals = self._proposals(histories, width, constraints)
        found = _candidates(proposals, [one.ranked.items for one in proposals.values()])
        ranked = self._ranked(found, k, rules)
        for _ in range(k if rules.limits else 0):
            more_BM = self._outside_full_groups(histories, width, constraints, rules.limits, ranked.items)
            extended = _candidates(proposals, [found.items_BC, more_BM])
            if torch.equal(extended.items_BC, found.items_BC):
                break
            found = extended
            ranked = self._ranked(found, k, rules)
        return ranked

    @torch.inference_mode()
    def recommend_parts(
        self, histories: Histories, k: int, parts: Sequence[Sequence[str]], *, exclude_seen: bool = True
    ) -> list[Ranked]:
        """What `only` of each of these parts would recommend, for the cost of the whole: they share the search."""
        found = self.candidates(histories, k, Constraints(exclude_seen))
        ranked = []
        for names in parts:
            if len(names) == 1 and isinstance(self.experts[names[0]], NeighbourExpert):
                # It answers otherwise when it is alone, and looking up neighbours costs little.
                ranked.append(self.only(names).recommend(histories, k, exclude_seen=exclude_seen))
            elif len(names) == 1:
                items_BK, scores_BK, _ = found.proposals[names[0]]
                ranked.append(Ranked(items_BK[:, :k], scores_BK[:, :k], {names[0]: scores_BK[:, :k]}))
            else:
                ranked.append(self._ranked(found.only(names), k, NO_RULES))
        return ranked

    def candidates(
        self, histories: Histories, k: int, constraints: Constraints = UNCONSTRAINED
    ) -> Candidates:
        """The items of all proposals for lists of k items, with what every expert says of them."""
        proposals = self._proposals(histories, max(k, self.width), constraints)
        return _candidates(proposals, [one.ranked.items for one in proposals.values()])

    def _proposals(self, histories: Histories, width: int, constraints: Constraints) -> dict[str, Proposal]:
        proposals: dict[str, Proposal] = {}
        # Codes come last: what the others propose is scored in the calls of the model that the search makes anyway.
        for name, expert in sorted(self._asked.items(), key=lambda one: isinstance(one[1], CodesExpert)):
            pause()
            if isinstance(expert, CodesExpert) and proposals:
                others_BM = torch.cat([one.ranked.items for one in proposals.values()], dim=1)
                proposals[name] = expert.propose(histories, width, constraints, others_BM)
            else:
                proposals[name] = expert.propose(histories, width, constraints)
        return {name: proposals[name] for name in self._asked}

    def _ranked(self, found: Candidates, k: int, rules: ItemRules) -> Ranked:
        """The best k candidates within the limits."""
        if len(found.log_p) == 1:
            (joint_BC,) = found.log_p.values()
        else:
            joint_BC = found.joined({name: self.settings[name] for name in found.log_p})
        scores_BC = boosted(joint_BC, rules.boost_N, found.items_BC)
        return best_of(found.items_BC, scores_BC, found.log_p, k, rules.limits)

    def _outside_full_groups(
        self,
        histories: Histories,
        width: int,
        constraints: Constraints,
        limits: Sequence[Limit],
        items_BK: Tensor,
    ) -> Tensor:
        """More items for lists with padding: proposals from the groups that these lists have not filled.

        Each such list gets at least one more item if there is any, int64 [B, M], padded with PADDING.
        """
        more = [items_BK[:0, 0]] * len(items_BK)
        for row in (items_BK == PADDING).any(1).nonzero()[:, 0].tolist():
            list_K = items_BK[row][items_BK[row] != PADDING]
            allowed_N = ~in_full_groups(list_K, limits)
            allowed_N[list_K] = False
            if constraints.allowed_N is not None:
                allowed_N &= constraints.allowed_N
            if allowed_N.any():
                here = constraints._replace(allowed_N=allowed_N)
                proposals = self._proposals(histories.row(row), width, here)
                more[row] = torch.cat([one.ranked.items[0] for one in proposals.values()])
        return pad_sequence(more, batch_first=True, padding_value=PADDING)


def _candidates(proposals: Mapping[str, Proposal], lists: Sequence[Tensor]) -> Candidates:
    """What the experts say of the items of these lists."""
    items_BC = _union(lists)
    is_padding_BC = items_BC == PADDING
    return Candidates(
        items_BC,
        {
            name: proposal.log_probs(items_BC).masked_fill(is_padding_BC, -torch.inf)
            for name, proposal in proposals.items()
        },
        {name: proposal.ranked for name, proposal in proposals.items()},
    )


def _union(lists: Sequence[Tensor]) -> Tensor:
    """Each item of the lists' rows once, in ascending order, padded on the right with PADDING, int64 [B, C]."""
    items_BM = _padding_last(torch.cat([*lists], dim=1)).sort(dim=1).values
    repeated_BM = torch.zeros_like(items_BM, dtype=torch.bool)
    repeated_BM[:, 1:] = items_BM[:, 1:] == items_BM[:, :-1]
    items_BM = items_BM.masked_fill(repeated_BM, LAST).sort(dim=1).values
    width = int((items_BM != LAST).sum(1).max()) if items_BM.numel() else 0
    return items_BM[:, :width].masked_fill(items_BM[:, :width] == LAST, PADDING)


def _padding_last(items_BM: Tensor) -> Tensor:
    """Items, with an index in place of padding that sorts behind all others."""
    return items_BM.masked_fill(items_BM == PADDING, LAST)
