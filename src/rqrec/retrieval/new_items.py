"""Items that no expert was trained on: they are recommended by their content, beside what the experts recommend.

The experts' probabilities of the known items keep their order and their ratios. The new items together get a share of
all probability, which is what they would get if each had `rate` times the probability of a known item:

    p(known item) = (1 - share) x p_experts(item)
    p(new item)   = share x softmax over the new items of sharpness x affinity(item)
    share         = rate x new / (known + rate x new)

Among themselves they are compared by how much they are like what the experts recommend, so that all that the experts
know of the history counts, and like the history itself. Each is an average of exp(SIMILARITY x (cosine - 1)) over
items, weighted by their probability or by how recent they are:

    affinity(item) = log (similarity to the experts' list) + 1/2 log (similarity to the history)

Shapes: B histories, T items of a history, K items of the experts' list, M new items, N items of the catalogue,
C width of a content vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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

CONTENT = "content"  # name and type of the expert
DECAY = 0.7  # weight of an item of the history relative to the item after it
LIKE = 30  # items of the experts' list that new ones are compared with
SIMILARITY = 20.0
MAX_CELLS = 2**22  # of similarities that are held at once: 16 MB


@dataclass(frozen=True)
class NewItemSettings(Config):
    """How new items compete.

    Raises ValueError on values out of range.
    """

    rate: PositiveFloat = 1.0
    """Probability of a new item relative to a known one, on average over all histories."""
    sharpness: PositiveFloat = 1.0
    """How much the new items with the highest affinity are preferred."""

    def share(self, known: int, new: int) -> float:
        """The share of all probability that new items get."""
        return self.rate * new / (known + self.rate * new)


@dataclass(frozen=True)
class ContentExpert:
    """The new items that are most like the history and what the experts recommend; it knows no other items."""

    content: Sequence[NDArray[np.floating]]
    """Content vectors [N, C] of all items, in parts that follow each other; they may be memory-mapped."""
    first_new: int
    """The first new item: it and all after it are new."""
    unit_MC: Tensor
    """Vectors of length 1 of the new items, float32."""
    sharpness: float

    @torch.inference_mode()
    def propose(
        self, histories: Histories, count: int, constraints: Constraints, known: Ranked | None = None
    ) -> Proposal:
        """See `rqrec.retrieval.experts.Expert`; `known` is what the experts of the known items recommend."""
        logits_BM = self.sharpness * self.affinity(histories, known)
        if constraints.allowed_N is not None:
            logits_BM = logits_BM.masked_fill(~constraints.allowed_N[self.first_new :], -torch.inf)
        if constraints.exclude_seen:
            new_BT = np.where(
                histories.items_BT < self.first_new, PADDING, histories.items_BT - self.first_new
            )
            exclude(logits_BM, torch.from_numpy(new_BT).to(logits_BM.device))
        log_p_BM = logits_BM - logits_BM.logsumexp(1, keepdim=True).nan_to_num(neginf=0.0)
        boost_N = constraints.boost_N
        own_boost_M = None if boost_N is None else boost_N[self.first_new :]
        ranked = rank_scores(boosted(log_p_BM, own_boost_M), count)
        is_item = ranked.items != PADDING
        ranked = Ranked(torch.where(is_item, ranked.items + self.first_new, PADDING), ranked.scores)

        def log_probs(items_BC: Tensor) -> Tensor:
            own_BC = log_p_BM.gather(1, (items_BC - self.first_new).clamp(min=0))
            return own_BC.masked_fill(items_BC < self.first_new, -torch.inf)

        return Proposal(ranked, log_probs)

    def affinity(self, histories: Histories, known: Ranked | None = None) -> Tensor:
        """How much each new item is like a history and what the experts recommend after it, [B, M].

        An empty history, or an empty list, says nothing about any item.
        """
        n_items = sum(map(len, self.content))
        like_history_BM = self._similarity(weighted_histories(histories, DECAY, n_items))
        if known is None:
            return 0.5 * like_history_BM
        items_BK = known.items[:, :LIKE].numpy(force=True)
        p_BK = known.scores[:, :LIKE].softmax(1).numpy(force=True)
        rows, columns = np.nonzero(items_BK != PADDING)
        cells = rows, items_BK[rows, columns]
        like_list_BM = self._similarity(csr_array((p_BK[rows, columns], cells), (len(items_BK), n_items)))
        return like_list_BM + 0.5 * like_history_BM

    def _similarity(self, weights_BN: csr_array) -> Tensor:
        """The logarithm of the weighted mean similarity of each new item to some items, [B, M]; 0 without any."""
        items = np.unique(weights_BN.indices)
        weights = weights_BN[:, items].toarray()
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        device, n_new = self.unit_MC.device, len(self.unit_MC)
        total_BM = torch.zeros(len(weights), n_new, device=device)
        step = max(1, MAX_CELLS // max(1, n_new))
        for start in range(0, len(items), step):
            unit_UC = torch.from_numpy(self._unit(items[start : start + step])).to(device)
            like_UM = (SIMILARITY * (unit_UC @ self.unit_MC.T - 1)).exp()
            total_BM += torch.from_numpy(weights[:, start : start + step]).to(device) @ like_UM
        is_empty_B1 = torch.from_numpy(weights.sum(axis=1, keepdims=True) == 0).to(device)
        return total_BM.masked_fill(is_empty_B1, 1.0).log()

    def _unit(self, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of items in ascending order, of length 1."""
        rows, start = [np.empty((0, self.unit_MC.shape[1]), dtype=np.float32)], 0
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
    share: float = 0.0
    """The share of all probability that new items get."""

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
        (ranked,) = self.recommend_with_shares(
            histories, k, (self.share,), exclude_seen=exclude_seen, rules=rules
        )
        return ranked

    @torch.inference_mode()
    def recommend_with_shares(
        self,
        histories: Histories,
        k: int,
        shares: Sequence[float],
        *,
        exclude_seen: bool = True,
        rules: ItemRules = NO_RULES,
    ) -> list[Ranked]:
        """`recommend` for each of several shares of new items, with one search."""
        allowed_N = self.available_N if rules.allowed_N is None else both(self.available_N, rules.allowed_N)
        lists = []
        if self.experts is not None:
            known_rules = rules._replace(allowed_N=both(allowed_N, self.known_N))
            width = k if self.content is None else max(k, LIKE)
            lists.append(
                self.experts.recommend(histories, width, exclude_seen=exclude_seen, rules=known_rules)
            )
        if self.content is not None:
            count = (
                len(self.content.unit_MC) if rules.limits else k
            )  # all of them, for the limits to choose from
            constraints = Constraints(exclude_seen, allowed_N, rules.boost_N)
            found = self.content.propose(histories, count, constraints, lists[0] if lists else None)
            items_BM, scores_BM, _ = found.ranked
            boost_N = None if rules.boost_N is None else -rules.boost_N
            said = {CONTENT: boosted(scores_BM, boost_N, items_BM)}
            lists.append(best_of(items_BM, scores_BM, said, k, rules.limits))
        if len(lists) == 1:
            return lists * len(shares)
        known, new = lists
        return [self._mixed(known, new, share, k, rules.limits) for share in shares]

    def _mixed(self, known: Ranked, new: Ranked, share: float, k: int, limits: Sequence[Limit]) -> Ranked:
        share_B1 = torch.full_like(known.scores[:, :1], share)
        share_B1 = torch.where((new.items != PADDING).any(1, keepdim=True), share_B1, 0.0)
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
