"""Items that no expert was trained on: they are recommended by their content, beside what the experts recommend.

The experts' probabilities of the known items keep their order and their ratios. Of a new item, they would have said
something if it had been known: that is estimated from its content, as if all items were compared by content alone,
times a rate that validation chooses:

    likeness(item, other) = exp(sharpness x (cosine - 1))
    likeness(item)        = mean likeness to the history, an item DECAY times that of the item after it
    odds(new item)        = rate x likeness(item) / summed likeness of the known items
    p(new item)           = odds(item) / (1 + sum of the odds of all new items)
    p(known item)         = p_experts(item) / (1 + sum of the odds of all new items)

So an item is recommended to those whom it suits, whether it comes alone or with thousands.

Shapes: B histories, T items of a history, U different items of all, M new items, N items of the catalogue, X items
that others are compared with, A known items of which rules may allow some, K items of a list, C width of a content
vector (or candidates).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rqrec.core.values import Config, PositiveFloat
from rqrec.data.ids import PADDING
from rqrec.data.nearest import unit
from rqrec.data.sequences import Histories
from rqrec.knn.recency import weighted_histories
from rqrec.retrieval.constraints import Constraints, ItemRules, Limit, best_of, both
from rqrec.retrieval.ensemble import NO_RULES, Ensemble
from rqrec.retrieval.experts import Proposal, boosted, exclude
from rqrec.retrieval.ranking import Ranked, rank_scores
from rqrec.retrieval.sampling import sample_of

CONTENT = "content"  # name and type of the expert
DECAY = 0.7  # weight of an item of the history relative to the item after it
RECENT = 30  # items of a history that the likeness is to; the others would weigh less than 0.0001
LEAST = -60.0  # logarithm of a likeness
MAX_CELLS = 2**22  # of likeness that are held at once: 16 MB
SUMMED = 16_384  # items that a sum over more of them is estimated from
ALLOWED = 512  # items that the share of what rules allow is estimated from


@dataclass(frozen=True)
class NewItemSettings(Config):
    """How new items compete.

    Raises ValueError on values out of range.
    """

    rate: PositiveFloat = 1.0
    """Probability of a new item relative to a known one that is as much like a history, on average."""
    sharpness: PositiveFloat = 15.0
    """How much items that are much like the history are preferred."""


class NewItems(NamedTuple):
    """What the content says of the new items."""

    proposal: Proposal
    """Log-probabilities of the new items among themselves."""
    log_odds_B: Tensor
    """Of all new items together against all known ones, at rate 1."""


class Likeness:
    """How much items are like each other by content, exp(sharpness x (cosine - 1)): 1 for the same content."""

    def __init__(
        self,
        content: Sequence[NDArray[np.floating]],
        sharpness: float,
        among: NDArray[np.int64],
        device: torch.device | str = "cpu",
    ) -> None:
        """`content`: vectors [N, C] of all items, in parts that follow each other; they may be memory-mapped.

        `sums` are over the items `among`, in ascending order, or over a sample of them if there are many.
        """
        self._content, self._sharpness, self._device = content, sharpness, device
        self.n_items, self.among, self.sample = sum(map(len, content)), among, sample_of(among, SUMMED)
        self._sums_N = torch.full((self.n_items,), torch.nan, device=device)  # NaN: not asked for yet

    @cached_property
    def _sample_units(self) -> Tensor:
        return self.units(self.sample)

    def units(self, items: NDArray[np.int64]) -> Tensor:
        """The vectors of items in ascending order, of length 1, float32 [X, C]."""
        rows, start = [np.empty((0, self._content[0].shape[1]), dtype=np.float32)], 0
        for part in self._content:
            inside = items[(items >= start) & (items < start + len(part))]
            rows.append(unit(part[inside - start]))
            start += len(part)
        return torch.from_numpy(np.concatenate(rows)).to(self._device)

    def between(self, units_UC: Tensor, units_XC: Tensor) -> Tensor:
        """The likeness of vectors of length 1, [U, X]; never 0, which would make an item impossible."""
        return (self._sharpness * (units_UC @ units_XC.T - 1)).clamp(min=LEAST).exp()

    def sums(self, items_U: NDArray[np.int64]) -> Tensor:
        """The summed likeness of items (in ascending order) to those of the sample, [U]; computed once per item."""
        unknown = items_U[self._sums_N[items_U].isnan().numpy(force=True)]
        if len(unknown):
            units_UC, rows = self.units(unknown), max(1, MAX_CELLS // len(unknown))
            totals = [self.between(units_UC, block).sum(1) for block in self._sample_units.split(rows)]
            self._sums_N[unknown] = torch.stack(totals).sum(0)
        return self._sums_N[items_U]


class _Read(NamedTuple):
    """A batch of histories."""

    items_U: NDArray[np.int64]
    units_UC: Tensor
    weights_BU: Tensor
    """By how recent an item is; the sum over a history is 1, or 0 if it is empty."""


@dataclass(frozen=True)
class ContentExpert:
    """The new items that are most like the history; it knows no other items."""

    likeness: Likeness
    """Its sums are over the known items. If they are over new ones too, these are left out."""
    new: NDArray[np.int64]
    """Which items are new, in ascending order."""

    @cached_property
    def _units(self) -> Tensor:
        return self.likeness.units(self.new)

    @cached_property
    def _items(self) -> Tensor:
        return torch.from_numpy(self.new).to(self._units.device)

    @cached_property
    def _columns(self) -> Tensor:
        """The place of each item among the new ones, int64, PADDING for the others; at the end that of PADDING."""
        column_N = np.full(self.likeness.n_items + 1, PADDING)
        column_N[self.new] = np.arange(len(self.new))
        return torch.from_numpy(column_N).to(self._units.device)

    @cached_property
    def _summed(self) -> NDArray[np.int64]:
        """The known items that a sum is estimated from."""
        return np.setdiff1d(self.likeness.sample, self.new)

    @cached_property
    def _is_summed(self) -> NDArray[np.bool_]:
        """The same as a mask, by item index."""
        mask_N = np.zeros(self.likeness.n_items, dtype=bool)
        mask_N[self._summed] = True
        return mask_N

    @cached_property
    def _not_known(self) -> Tensor:
        """The new items, by their places, that the sums of the likeness are over: they are not known."""
        return torch.from_numpy(np.flatnonzero(np.isin(self.new, self.likeness.sample))).to(
            self._units.device
        )

    @cached_property
    def _some(self) -> tuple[Tensor, Tensor]:
        """Known items that the share of what rules allow is estimated from, and their vectors."""
        some = sample_of(self._summed, ALLOWED)
        units_AC = self.likeness.units(some)
        return torch.from_numpy(some).to(units_AC.device), units_AC

    @cached_property
    def n_known(self) -> int:
        """Number of known items."""
        return len(self.likeness.among) - len(np.intersect1d(self.likeness.among, self.new))

    @torch.inference_mode()
    def propose(self, histories: Histories, count: int, constraints: Constraints) -> NewItems:
        """The best new items under the constraints."""
        log_odds_BM = self.log_odds(histories, constraints)
        total_B1 = log_odds_BM.logsumexp(1, keepdim=True)
        log_p_BM = log_odds_BM - total_B1.nan_to_num(neginf=0.0)
        own_boost_M = None if constraints.boost_N is None else constraints.boost_N[self._items]
        ranked = rank_scores(boosted(log_p_BM, own_boost_M), count)
        items_BK = torch.where(ranked.items == PADDING, PADDING, self._items[ranked.items])

        def log_probs(items_BC: Tensor) -> Tensor:
            columns_BC = self._columns[items_BC]
            return log_p_BM.gather(1, columns_BC.clamp(min=0)).masked_fill(columns_BC == PADDING, -torch.inf)

        return NewItems(Proposal(Ranked(items_BK, ranked.scores), log_probs), total_B1[:, 0])

    def log_odds(self, histories: Histories, constraints: Constraints) -> Tensor:
        """Of each new item against all known ones at rate 1, [B, M]; minus infinity for those that are excluded.

        An empty history says nothing about any item.
        """
        read = self._read(histories)
        like_UM = self.likeness.between(read.units_UC, self._units)
        known_B = self._known(histories, read, like_UM, constraints)
        is_empty_B1 = ~read.weights_BU.any(1, keepdim=True)
        log_odds_BM = (read.weights_BU @ like_UM).masked_fill(is_empty_B1, 1.0).log() - known_B.log()[:, None]
        if constraints.allowed_N is not None:
            log_odds_BM = log_odds_BM.masked_fill(~constraints.allowed_N[self._items], -torch.inf)
        if constraints.exclude_seen:
            seen_BT = torch.from_numpy(histories.items_BT).to(log_odds_BM.device).long()
            exclude(log_odds_BM, self._columns[seen_BT])
        return log_odds_BM

    def _read(self, histories: Histories) -> _Read:
        weights_BN = weighted_histories(histories.last(RECENT), DECAY, self.likeness.n_items)
        items_U = np.unique(weights_BN.indices).astype(np.int64)
        weights = weights_BN[:, items_U].toarray()
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        units_UC = self.likeness.units(items_U)
        return _Read(items_U, units_UC, torch.from_numpy(weights).to(units_UC.device))

    def _known(self, histories: Histories, read: _Read, like_UM: Tensor, constraints: Constraints) -> Tensor:
        """The summed likeness of the known items that may be recommended, [B]."""
        sums_U = self.likeness.sums(read.items_U) - like_UM[:, self._not_known].sum(1)
        sums_B = read.weights_BU @ sums_U
        if constraints.exclude_seen:
            sums_B = sums_B - self._of_seen(histories, read)
        known_B = sums_B * (self.n_known / max(1, len(self._summed)))
        is_empty_B = ~read.weights_BU.any(1)
        known_B = known_B.masked_fill(is_empty_B, self.n_known).clamp(min=1e-30)
        if constraints.allowed_N is None:
            return known_B
        items_A, units_AC = self._some
        allowed_A = constraints.allowed_N[items_A].float()
        like_BA = read.weights_BU @ self.likeness.between(read.units_UC, units_AC)
        like_BA = like_BA.masked_fill(is_empty_B[:, None], 1.0)
        # If none of these is allowed, one in all is.
        return known_B * ((like_BA @ allowed_A) / like_BA.sum(1)).clamp(min=1 / max(1, self.n_known))

    def _of_seen(self, histories: Histories, read: _Read) -> Tensor:
        """What the items of each history add to the sums, [B]."""
        added = []
        for items_T, weights_U in zip(histories.items_BT, read.weights_BU, strict=True):
            seen = np.unique(items_T[items_T != PADDING])
            units_XC = self.likeness.units(seen[self._is_summed[seen]])
            own = weights_U.nonzero()[:, 0]  # a user at a time: of others, the likeness would not be used
            added.append(weights_U[own] @ self.likeness.between(read.units_UC[own], units_XC).sum(1))
        return torch.stack(added) if added else read.weights_BU.new_zeros(0)


@dataclass(frozen=True)
class LiveRecommender:
    """Recommends from a catalogue that has changed since training: new items are added, removed ones left out."""

    experts: Ensemble | None
    """The experts of the known items; None: only new items are recommended."""
    known_N: Tensor
    """The items that the experts were trained on, bool."""
    available_N: Tensor
    """All items but those that were removed, bool."""
    content: ContentExpert | None = None
    """The expert of new items; None: there are none, or they are not recommended."""
    rate: float = 1.0
    """See `NewItemSettings`."""

    def only(self, names: Sequence[str]) -> "LiveRecommender":
        """With some of the experts; new items are recommended if `CONTENT` is among them."""
        trained = [name for name in names if name != CONTENT]
        experts = self.experts.only(trained) if self.experts is not None and trained else None
        return replace(self, experts=experts, content=self.content if CONTENT in names else None)

    @torch.inference_mode()
    def recommend(
        self, histories: Histories, k: int, *, exclude_seen: bool = True, rules: ItemRules = NO_RULES
    ) -> Ranked:
        """The k most probable next items of each history: see `Ensemble.recommend`."""
        (ranked,) = self.recommend_at_rates(
            histories, k, (self.rate,), exclude_seen=exclude_seen, rules=rules
        )
        return ranked

    @torch.inference_mode()
    def recommend_at_rates(
        self,
        histories: Histories,
        k: int,
        rates: Sequence[float],
        *,
        exclude_seen: bool = True,
        rules: ItemRules = NO_RULES,
    ) -> list[Ranked]:
        """`recommend` for each of several rates of new items (0: none are recommended), with one search."""
        allowed_N = self.available_N if rules.allowed_N is None else both(self.available_N, rules.allowed_N)
        lists = []
        if self.experts is not None:
            known_rules = rules._replace(allowed_N=both(allowed_N, self.known_N))
            lists.append(self.experts.recommend(histories, k, exclude_seen=exclude_seen, rules=known_rules))
        if self.content is not None:
            count = len(self.content.new) if rules.limits else k  # all of them, for the limits to choose from
            constraints = Constraints(exclude_seen, allowed_N, rules.boost_N)
            found = self.content.propose(histories, count, constraints)
            items_BM, scores_BM, _ = found.proposal.ranked
            boost_N = None if rules.boost_N is None else -rules.boost_N
            said = {CONTENT: boosted(scores_BM, boost_N, items_BM)}
            lists.append(best_of(items_BM, scores_BM, said, k, rules.limits))
        if len(lists) == 1:
            return lists * len(rates)
        known, new = lists
        log_odds_B1 = found.log_odds_B[:, None]
        shares = [(log_odds_B1 + torch.tensor(rate).log()).sigmoid() for rate in rates]
        return [self._mixed(known, new, share_B1, k, rules.limits) for share_B1 in shares]

    def _mixed(self, known: Ranked, new: Ranked, share_B1: Tensor, k: int, limits: Sequence[Limit]) -> Ranked:
        share_B1 = torch.where((known.items != PADDING).any(1, keepdim=True), share_B1, 1.0)
        items_BM = torch.cat([known.items, new.items], dim=1)
        scores_BM = torch.cat([known.scores + torch.log1p(-share_B1), new.scores + share_B1.log()], dim=1)
        said = {name: _beside(scores, new.scores, before=False) for name, scores in known.experts.items()}
        (content_BK,) = new.experts.values()
        said[CONTENT] = _beside(content_BK, known.scores, before=True)
        return best_of(items_BM, scores_BM, said, k, limits)


def _beside(scores_BK: Tensor, others_BK: Tensor, *, before: bool) -> Tensor:
    """Scores of an expert next to those of items that are impossible for it."""
    impossible = torch.full_like(others_BK, -torch.inf)
    return torch.cat([impossible, scores_BK] if before else [scores_BK, impossible], dim=1)
