"""Chooses on validation how new items compete, with known items in their place.

Some of the known items are treated as new: the experts may not recommend them, and they are recommended by their
content alone, as items that come after the training are. No expert is trained for it, so the experts know these items
as parts of histories, in which new items are not yet.

Shapes: E examples, K items of a list, M items treated as new, N items of the catalogue, C width of content, S values
of the sharpness.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rqrec.core.memory import FreeMemory
from rqrec.core.progress import track
from rqrec.data.ids import PADDING
from rqrec.data.splits import EvalExamples, Split
from rqrec.evaluation.metrics import MISSED
from rqrec.retrieval.constraints import Constraints
from rqrec.retrieval.ensemble import Ensemble
from rqrec.retrieval.new_items import ContentExpert, Likeness, NewItemSettings
from rqrec.retrieval.ranking import Ranked

SHARE = 0.05  # of the known items that are treated as new at a time
DRAWS = 8  # of items to treat as new, each for a part of the examples: it matters much which are drawn
EVERY = 2  # each draw is tried on every second example
LISTED = 30  # items of a search: enough of them are known in every draw
MAX_NEW = 1_000
MAX_EXAMPLES = 10_000
RATES = tuple(round(0.1 * 10 ** (step / 10), 3) for step in range(29))  # of the curve: 0.1 to 63
SHARPNESS = (7.0, 15.0, 30.0, 60.0)
BATCH_SIZE = 128
K = 10  # of recall


class FittedNewItems(NamedTuple):
    """How new items compete, and what other rates would gain and lose."""

    settings: NewItemSettings
    curve: list[dict[str, float]]
    """By `rate`, with the chosen one: recall@10 of targets treated as `new`, and of `known` ones.

    The first row has no new items.
    """


@torch.inference_mode()
def fit_new_items(
    ensemble: Ensemble,
    content_NC: NDArray[np.floating],
    split: Split,
    *,
    cost: float,
    exclude_seen: bool = True,
    seed: int = 0,
) -> FittedNewItems:
    """Chooses the highest recall@10 of new items with which known ones lose at most the share `cost` of theirs.

    The rate is within those of the curve; if known ones lose more even at the lowest, that is taken. The sharpness is
    the default one unless another is better by more than a standard error: a small difference of recall is noise.
    """
    known = np.flatnonzero(np.bincount(split.train.items, minlength=len(content_NC)))
    size = min(max(1, min(MAX_NEW, round(SHARE * len(known)))), len(known) - 1)
    drawn = np.random.default_rng(seed).permutation(known)[: DRAWS * size]
    examples = split.validation.strided(-(-len(split.validation) // MAX_EXAMPLES))
    found = _search(ensemble, examples, exclude_seen)
    draws = [np.sort(drawn[start : start + size]) for start in range(0, len(drawn) - size + 1, size)]
    parts = []
    for draw, new in enumerate(draws):
        some, every = examples.strided(EVERY, draw % EVERY), slice(draw % EVERY, None, EVERY)
        listed = Ranked(found.items[every], found.scores[every])
        parts.append((new, some, _Part.of(listed, new, len(content_NC), some)))
    is_new_E = torch.cat([part.targets_new for _, _, part in parts])
    tradeoffs = []
    for sharpness in track(SHARPNESS, "Calibrating new items"):
        likeness = Likeness((content_NC,), sharpness, np.arange(len(content_NC)))
        limits_E = [
            part.limits(_log_odds(ContentExpert(likeness, new), some, exclude_seen))
            for new, some, part in parts
        ]
        tradeoffs.append(_Tradeoff.of(torch.cat(limits_E), is_new_E))
    rates = [tradeoff.best_rate(cost) for tradeoff in tradeoffs]
    recalls = [tradeoff.new(rate) for tradeoff, rate in zip(tradeoffs, rates, strict=True)]
    sharp = _choose(recalls, len(tradeoffs[0].new_E))
    rate, tradeoff = rates[sharp], tradeoffs[sharp]
    curve = [
        {"rate": rate, "new": tradeoff.new(rate), "known": tradeoff.known(rate)}
        for rate in (0.0, *sorted({*RATES, rate}))
    ]
    settings = NewItemSettings(rate, SHARPNESS[sharp]) if tradeoff.new(rate) else NewItemSettings()
    return FittedNewItems(settings, curve)


def _choose(new_S: Sequence[float], n_new: int) -> int:
    """The index of the sharpness, by recall@10 of so many new targets; see `fit_new_items`."""
    best, default = int(np.argmax(new_S)), SHARPNESS.index(NewItemSettings().sharpness)
    error = np.sqrt(new_S[best] * (1 - new_S[best]) / max(n_new, 1))
    return default if new_S[default] >= new_S[best] - error else best


@dataclass(frozen=True)
class _Tradeoff:
    """What new items gain and known ones lose, at any rate."""

    new_E: NDArray[np.float64]
    """Logarithms of the rates from which targets that are treated as new are among the first K, ascending."""
    known_E: NDArray[np.float64]
    """Logarithms of the rates up to which known targets are among the first K, ascending."""

    @classmethod
    def of(cls, limits_E: Tensor, is_new_E: Tensor) -> "_Tradeoff":
        return cls(*(limits_E[kind_E].sort().values.double().numpy() for kind_E in (is_new_E, ~is_new_E)))

    def new(self, rate: float) -> float:
        """Recall@10 of the targets that are treated as new; 0 at rate 0, with which no new item is recommended."""
        return self._new_hits(np.log(rate)) / max(1, len(self.new_E)) if rate else 0.0

    def known(self, rate: float) -> float:
        """Recall@10 of the known targets."""
        lost = np.searchsorted(self.known_E, np.log(rate)) if rate else self._never
        return float(len(self.known_E) - lost) / max(1, len(self.known_E))

    def best_rate(self, cost: float) -> float:
        """The best rate for new items with which known ones lose at most this share of theirs.

        Between the rates that are equally good, it is the middle.
        """
        lowest, highest = np.log(RATES[0]), np.log(RATES[-1])
        affordable = self._never + int(cost * (len(self.known_E) - self._never))
        if affordable < len(self.known_E):
            highest = min(highest, max(lowest, self.known_E[affordable]))
        hits = self._new_hits(highest)
        if hits:
            lowest = min(highest, max(lowest, self.new_E[hits - 1]))
        return float(np.exp((lowest + highest) / 2))

    @property
    def _never(self) -> int:
        """How many known targets are not among the first K even without new items."""
        return int(np.searchsorted(self.known_E, -np.inf, side="right"))

    def _new_hits(self, log_rate: float) -> int:
        return int(np.searchsorted(self.new_E, log_rate, side="right"))


def _search(ensemble: Ensemble, examples: EvalExamples, exclude_seen: bool) -> Ranked:
    """What the experts recommend, [E, LISTED], when all items are known."""
    found, memory = [], FreeMemory()
    for rows in track(list(examples.batches(BATCH_SIZE)), "Searching, to calibrate new items"):
        found.append(ensemble.recommend(examples.histories(rows), LISTED, exclude_seen=exclude_seen))
        memory.limit()
    return Ranked(
        torch.cat([one.items for one in found]).cpu(), torch.cat([one.scores for one in found]).cpu()
    )


def _log_odds(content: ContentExpert, examples: EvalExamples, exclude_seen: bool) -> Tensor:
    """Of each item that is treated as new against all known ones at rate 1, [E, M]."""
    constraints = Constraints(exclude_seen=exclude_seen)
    return torch.cat(
        [content.log_odds(examples.histories(rows), constraints) for rows in examples.batches(BATCH_SIZE)]
    )


class _Part(NamedTuple):
    """What is recommended for some examples while some of the known items are treated as new."""

    known_EK: Tensor
    """Log-probabilities of the best known items, in descending order; minus infinity where there are fewer."""
    known_rank_E: Tensor
    """The 0-based rank of a known target, MISSED if it is not in the list or treated as new."""
    column_E: Tensor
    """The place of a target among the items treated as new; -1 for a known one."""

    @classmethod
    def of(cls, found: Ranked, new: NDArray[np.int64], n_items: int, examples: EvalExamples) -> "_Part":
        """`found` is what the experts recommend, [E, LISTED], when these items (in ascending order) are known too."""
        column_N = np.full(n_items, PADDING)
        column_N[new] = np.arange(len(new))
        items_EK, scores_EK = _without(found, torch.from_numpy(column_N != PADDING))
        is_target_EK = items_EK == torch.from_numpy(examples.targets)[:, None]
        rank_E = torch.where(is_target_EK.any(1), is_target_EK.int().argmax(1), MISSED)
        return cls(scores_EK, rank_E, torch.from_numpy(column_N[examples.targets]))

    @property
    def targets_new(self) -> Tensor:
        """Whether the target is treated as new, bool."""
        return self.column_E >= 0

    def limits(self, log_odds_EM: Tensor) -> Tensor:
        """The logarithm of the rate from which a new target is among the first K, or up to which a known one is, [E].

        `log_odds_EM` are those of the new items at rate 1. A new target that never is has infinity, a known one minus
        infinity.
        """
        # Ranks do not depend on what all probabilities are divided by. A new target leaves room for so many known
        # items before it, and a known one for so many new ones; the next must not be before it.
        is_new_E = self.targets_new
        own_E1 = log_odds_EM.gather(1, self.column_E.clamp(min=0)[:, None])
        room_E = K - 1 - torch.where(is_new_E, (log_odds_EM > own_E1).sum(1), self.known_rank_E)
        best_EK = log_odds_EM.topk(min(K, log_odds_EM.shape[1])).values
        next_new_E = _at(best_EK, room_E)
        next_known_E = _at(self.known_EK, room_E)
        own_known_E = _at(self.known_EK, self.known_rank_E)
        from_E = torch.where(own_E1[:, 0] == -torch.inf, torch.inf, next_known_E - own_E1[:, 0])
        up_to_E = torch.where(next_new_E == -torch.inf, torch.inf, own_known_E - next_new_E)
        never_E = torch.where(is_new_E, torch.inf, -torch.inf)
        return torch.where(room_E < 0, never_E, torch.where(is_new_E, from_E, up_to_E))


def _at(scores_EK: Tensor, place_E: Tensor) -> Tensor:
    """The score at this place of each list, minus infinity beyond its end."""
    last = scores_EK.shape[1] - 1
    scores_E = scores_EK.gather(1, place_E.clamp(0, last)[:, None])[:, 0]
    return scores_E.masked_fill(place_E > last, -torch.inf)


def _without(found: Ranked, is_new_N: Tensor) -> tuple[Tensor, Tensor]:
    """The best K of the lists without the new items, and their log-probabilities without these."""
    drop_EK = (found.items == PADDING) | is_new_N[found.items.clamp(min=0)]
    order_EK = drop_EK.int().argsort(dim=1, stable=True)
    scores_EK = found.scores.masked_fill(drop_EK, -torch.inf).gather(1, order_EK)
    items_EK = found.items.masked_fill(drop_EK, PADDING).gather(1, order_EK)
    of_new_E1 = found.scores.masked_fill(~drop_EK, -torch.inf).exp().sum(1, keepdim=True)
    return items_EK[:, :K], scores_EK[:, :K] - torch.log1p(-of_new_E1.clamp(max=1 - 1e-6))
