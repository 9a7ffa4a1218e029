"""Chooses on validation how new items compete, with known items in their place.

Some of the known items are treated as new: the experts may not recommend them, and they are recommended by their
content alone, as items that come after the training are. No expert is trained for it, so the experts know these items
as parts of histories, in which new items are not yet.

Shapes: E examples, K items of a list, M items treated as new, N items of the catalogue, C width of content, S values
of the sharpness, R rates.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rqrec.core.memory import FreeMemory
from rqrec.core.progress import track
from rqrec.data.ids import PADDING
from rqrec.data.splits import EvalExamples, Split
from rqrec.evaluation.metrics import MISSED, recall_at
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
RATES = tuple(round(0.1 * 10 ** (step / 10), 3) for step in range(29))  # 0.1 to 63
SHARPNESS = (7.0, 15.0, 30.0, 60.0)
BATCH_SIZE = 128
K = 10  # of recall


class FittedNewItems(NamedTuple):
    """How new items compete, and what other rates would gain and lose."""

    settings: NewItemSettings
    curve: list[dict[str, float]]
    """By `rate`: recall@10 of targets treated as `new`, and of `known` ones. The first row has no new items."""


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

    If they lose more even at the lowest rate, that is taken. The sharpness is the default one unless another is
    better by more than a standard error: a small difference of recall is noise.
    """
    known = np.flatnonzero(np.bincount(split.train.items, minlength=len(content_NC)))
    size = min(max(1, min(MAX_NEW, round(SHARE * len(known)))), len(known) - 1)
    drawn = np.random.default_rng(seed).permutation(known)[: DRAWS * size]
    examples = split.validation.strided(-(-len(split.validation) // MAX_EXAMPLES))
    found = _search(ensemble, examples, exclude_seen)
    hits_SR2, targets_2 = np.zeros((len(SHARPNESS), 1 + len(RATES), 2)), np.zeros(2)
    draws = [np.sort(drawn[start : start + size]) for start in range(0, len(drawn) - size + 1, size)]
    parts = []
    for draw, new in enumerate(draws):
        some, every = examples.strided(EVERY, draw % EVERY), slice(draw % EVERY, None, EVERY)
        listed = Ranked(found.items[every], found.scores[every])
        parts.append((new, some, _Part.of(listed, new, len(content_NC), some)))
        targets_2 += parts[-1][2].targets
    for sharp, sharpness in enumerate(track(SHARPNESS, "Calibrating new items")):
        likeness = Likeness((content_NC,), sharpness, np.arange(len(content_NC)))
        for new, some, part in parts:
            log_odds_EM = _log_odds(ContentExpert(likeness, new), some, exclude_seen)
            hits_SR2[sharp] += [part.hits(log_odds_EM, rate) for rate in (0.0, *RATES)]
    recalls_SR2 = hits_SR2 / np.maximum(targets_2, 1)
    sharp, rate = _choose(recalls_SR2, targets_2[0], cost)
    curve = [
        {"rate": rate, "new": new, "known": known}
        for rate, (new, known) in zip((0.0, *RATES), recalls_SR2[sharp].tolist(), strict=True)
    ]
    nothing_new = not recalls_SR2[sharp, rate, 0]
    settings = NewItemSettings() if nothing_new else NewItemSettings((0.0, *RATES)[rate], SHARPNESS[sharp])
    return FittedNewItems(settings, curve)


def _choose(recalls_SR2: NDArray[np.float64], n_new: float, cost: float) -> tuple[int, int]:
    """The indices of sharpness and rate; see `fit_new_items`. Rate 0, the first, is none of the choices."""
    new_SR, known_SR = recalls_SR2[:, 1:, 0], recalls_SR2[:, 1:, 1]
    affordable_SR = known_SR >= (1 - cost) * recalls_SR2[0, 0, 1]
    if not affordable_SR.any():
        affordable_SR[:, 0] = True
    best_S = np.where(affordable_SR, new_SR, -1.0).max(1)
    sharp, default = int(best_S.argmax()), SHARPNESS.index(NewItemSettings().sharpness)
    error = np.sqrt(best_S[sharp] * (1 - best_S[sharp]) / max(n_new, 1))
    if best_S[default] >= best_S[sharp] - error:
        sharp = default
    rates = np.flatnonzero(affordable_SR[sharp] & (new_SR[sharp] == best_S[sharp]))
    return sharp, int(max(rates, key=lambda rate: known_SR[sharp, rate])) + 1


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
    def targets(self) -> NDArray[np.float64]:
        """How many targets are treated as new, and how many are known."""
        new = float((self.column_E >= 0).sum())
        return np.array([new, len(self.column_E) - new])

    def hits(self, log_odds_EM: Tensor, rate: float) -> NDArray[np.float64]:
        """How many targets that are treated as new are among the first K, and how many known ones.

        Rate 0: new items are not recommended.
        """
        is_new_E = (self.column_E >= 0).numpy()
        if not rate:
            return np.array([0.0, recall_at(K, self.known_rank_E.numpy())[~is_new_E].sum()])
        # Ranks do not depend on what all probabilities are divided by.
        new_EM, known_EK = log_odds_EM + np.log(rate), self.known_EK
        own_E1 = new_EM.gather(1, self.column_E.clamp(min=0)[:, None])
        listed_E1 = known_EK.gather(1, self.known_rank_E.clamp(0, K - 1)[:, None])
        target_E1 = torch.where(torch.from_numpy(is_new_E)[:, None], own_E1, listed_E1)
        rank_E = ((new_EM > target_E1).sum(1) + (known_EK > target_E1).sum(1)).numpy()
        rank_E = np.where(is_new_E | (self.known_rank_E.numpy() != MISSED), rank_E, MISSED)
        hit_E = recall_at(K, rank_E)
        return np.array([hit_E[is_new_E].sum(), hit_E[~is_new_E].sum()])


def _without(found: Ranked, is_new_N: Tensor) -> tuple[Tensor, Tensor]:
    """The best K of the lists without the new items, and their log-probabilities without these."""
    drop_EK = (found.items == PADDING) | is_new_N[found.items.clamp(min=0)]
    order_EK = drop_EK.int().argsort(dim=1, stable=True)
    scores_EK = found.scores.masked_fill(drop_EK, -torch.inf).gather(1, order_EK)
    items_EK = found.items.masked_fill(drop_EK, PADDING).gather(1, order_EK)
    of_new_E1 = found.scores.masked_fill(~drop_EK, -torch.inf).exp().sum(1, keepdim=True)
    return items_EK[:, :K], scores_EK[:, :K] - torch.log1p(-of_new_E1.clamp(max=1 - 1e-6))
