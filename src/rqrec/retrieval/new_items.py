"""Items that no expert was trained on: they are recommended by their content, beside what the experts recommend.

The experts' probabilities of the known items keep their order and their ratios. Of a new item, they would have said
something if it had been known: that is estimated from its content, as if all N items were compared by content alone,
times a rate that validation chooses:

    odds(new item) = rate x exp(sharpness x affinity(item)) / sum over the known items of the same exponential
    p(new item)    = odds(item) / (1 + sum of the odds of all new items)
    p(known item)  = p_experts(item) / (1 + sum of the odds of all new items)

So an item is recommended to those whom it suits, whether it comes alone or with thousands. The sum over the known
items is estimated from a sample of them. The affinity is how much an item is like what the experts recommend, so that
all that they know of the history counts, and like the history itself. Each is an average of
exp(SIMILARITY x (cosine - 1)) over items, weighted by their probability or by how recent they are:

    affinity(item) = log (similarity to the experts' list) + 1/2 log (similarity to the history)

Shapes: B histories, T items of a history, K items of the experts' list, M new items, S known items of the sample,
N items of the catalogue, C width of a content vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
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
from rqrec.retrieval.sampling import log_sum, sample_of

CONTENT = "content"  # name and type of the expert
DECAY = 0.7  # weight of an item of the history relative to the item after it
LIKE = 30  # items of the experts' list that the affinity compares with
SIMILARITY = 20.0
MAX_CELLS = 2**22  # of similarities that are held at once: 16 MB


@dataclass(frozen=True)
class NewItemSettings(Config):
    """How new items compete.

    Raises ValueError on values out of range.
    """

    rate: PositiveFloat = 1.0
    """Probability of a new item relative to a known one that is as much like a history, on average."""
    sharpness: PositiveFloat = 0.5
    """How much items with a high affinity are preferred."""


class NewItems(NamedTuple):
    """What the content says of the new items."""

    proposal: Proposal
    """Log-probabilities of the new items among themselves."""
    log_odds_B: Tensor
    """Of all new items together against all known ones, at rate 1."""


@dataclass(frozen=True)
class ContentExpert:
    """The new items that are most like the history and what the experts recommend; it knows no other items."""

    content: Sequence[NDArray[np.floating]]
    """Content vectors [N, C] of all items, in parts that follow each other; they may be memory-mapped."""
    first_new: int
    """The first new item: it and all after it are new."""
    sharpness: float
    device: torch.device | str = "cpu"

    @cached_property
    def _sample(self) -> NDArray[np.int64]:
        """Known items that the new ones are compared with."""
        return sample_of(np.arange(self.first_new))

    @cached_property
    def _compared(self) -> Tensor:
        """Vectors of length 1 of the new items, and after them of the sample."""
        new = np.arange(self.first_new, sum(map(len, self.content)))
        rows = np.concatenate([self._unit(new), self._unit(self._sample)])
        return torch.from_numpy(rows).to(self.device)

    @property
    def n_new(self) -> int:
        """Number of new items."""
        return sum(map(len, self.content)) - self.first_new

    @torch.inference_mode()
    def propose(
        self, histories: Histories, count: int, constraints: Constraints, known: Ranked | None = None
    ) -> NewItems:
        """The best new items under the constraints; `known` is what the experts of the known items recommend."""
        affinity_BX = self.affinity(histories, self._compared, known)
        logits_BX = self.sharpness * affinity_BX
        logits_BM, sample_BS = logits_BX.split([self.n_new, len(self._sample)], dim=1)
        n_known = self.first_new
        if constraints.allowed_N is not None:
            logits_BM = logits_BM.masked_fill(~constraints.allowed_N[self.first_new :], -torch.inf)
            n_known = int(constraints.allowed_N[: self.first_new].sum())
            allowed_S = constraints.allowed_N[torch.from_numpy(self._sample).to(self.device)]
            if allowed_S.any():  # otherwise the others stand for those that are allowed
                sample_BS = sample_BS[:, allowed_S]
        if constraints.exclude_seen:
            new_BT = np.where(
                histories.items_BT < self.first_new, PADDING, histories.items_BT - self.first_new
            )
            exclude(logits_BM, torch.from_numpy(new_BT).to(logits_BM.device))
        total_B1 = logits_BM.logsumexp(1, keepdim=True)
        log_p_BM = logits_BM - total_B1.nan_to_num(neginf=0.0)
        boost_N = constraints.boost_N
        own_boost_M = None if boost_N is None else boost_N[self.first_new :]
        ranked = rank_scores(boosted(log_p_BM, own_boost_M), count)
        is_item = ranked.items != PADDING
        ranked = Ranked(torch.where(is_item, ranked.items + self.first_new, PADDING), ranked.scores)

        def log_probs(items_BC: Tensor) -> Tensor:
            own_BC = log_p_BM.gather(1, (items_BC - self.first_new).clamp(min=0))
            return own_BC.masked_fill(items_BC < self.first_new, -torch.inf)

        return NewItems(Proposal(ranked, log_probs), total_B1[:, 0] - log_sum(sample_BS, n_known))

    def affinity(self, histories: Histories, unit_XC: Tensor, known: Ranked | None = None) -> Tensor:
        """How much items with these vectors of length 1 are like a history and what the experts recommend, [B, X].

        An empty history, or an empty list, says nothing about any item.
        """
        n_items = sum(map(len, self.content))
        like_history_BX = self._similarity(weighted_histories(histories, DECAY, n_items), unit_XC)
        if known is None:
            return 0.5 * like_history_BX
        items_BK = known.items[:, :LIKE].numpy(force=True)
        p_BK = known.scores[:, :LIKE].softmax(1).numpy(force=True)
        rows, columns = np.nonzero(items_BK != PADDING)
        cells = rows, items_BK[rows, columns]
        list_BN = csr_array((p_BK[rows, columns], cells), (len(items_BK), n_items))
        return self._similarity(list_BN, unit_XC) + 0.5 * like_history_BX

    def _similarity(self, weights_BN: csr_array, unit_XC: Tensor) -> Tensor:
        """The logarithm of the weighted mean similarity of each vector to some items, [B, X]; 0 without any."""
        items = np.unique(weights_BN.indices)
        weights = weights_BN[:, items].toarray()
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        device, n_compared = unit_XC.device, len(unit_XC)
        total_BX = torch.zeros(len(weights), n_compared, device=device)
        step = max(1, MAX_CELLS // max(1, n_compared))
        for start in range(0, len(items), step):
            unit_UC = torch.from_numpy(self._unit(items[start : start + step])).to(device)
            like_UX = (SIMILARITY * (unit_UC @ unit_XC.T - 1)).exp()
            total_BX += torch.from_numpy(weights[:, start : start + step]).to(device) @ like_UX
        is_empty_B1 = torch.from_numpy(weights.sum(axis=1, keepdims=True) == 0).to(device)
        return total_BX.masked_fill(is_empty_B1, 1.0).log()

    def _unit(self, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of items in ascending order, of length 1."""
        rows, start = [np.empty((0, self.content[0].shape[1]), dtype=np.float32)], 0
        for part in self.content:
            inside = items[(items >= start) & (items < start + len(part))]
            rows.append(unit(part[inside - start]))
            start += len(part)
        return np.concatenate(rows)


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
            width = k if self.content is None else max(k, LIKE)
            lists.append(
                self.experts.recommend(histories, width, exclude_seen=exclude_seen, rules=known_rules)
            )
        if self.content is not None:
            count = self.content.n_new if rules.limits else k  # all of them, for the limits to choose from
            constraints = Constraints(exclude_seen, allowed_N, rules.boost_N)
            found = self.content.propose(histories, count, constraints, lists[0] if lists else None)
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
