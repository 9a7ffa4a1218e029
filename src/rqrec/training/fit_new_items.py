"""Chooses on validation how new items compete, with known items in their place.

Some of the known items are treated as new: the experts may not recommend them, and they are recommended by their
content alone, as items that come after the training are. No expert is trained for it, so the experts know these items
as parts of histories, in which new items are not yet.

Shapes: B histories, E examples, K items of a list, M items treated as new, N items of the catalogue, C width of
content.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rqrec.core.memory import FreeMemory
from rqrec.core.progress import track
from rqrec.data.ids import PADDING
from rqrec.data.nearest import unit
from rqrec.data.splits import EvalExamples, Split
from rqrec.evaluation.metrics import MISSED, recall_at
from rqrec.retrieval.ensemble import Ensemble
from rqrec.retrieval.experts import exclude
from rqrec.retrieval.new_items import LIKE, ContentExpert, NewItemSettings
from rqrec.retrieval.ranking import Ranked
from rqrec.retrieval.sampling import log_sum, sample_of

SHARE = 0.05  # of the known items that are treated as new at a time
DRAWS = 8  # of items to treat as new, each for a part of the examples: it matters much which are drawn
EVERY = 2  # each draw is tried on every second example
LISTED = LIKE + 30  # items of a search: enough of them are known in every draw
MAX_NEW = 1_000
MAX_EXAMPLES = 10_000
RATES = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
SHARPNESS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4, 2.0)
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

    If they lose more even at the lowest rate, that is taken. Of all settings within a standard error of the best,
    those are chosen under which the targets treated as new are most likely: a small difference of recall is noise.
    """
    known = np.flatnonzero(np.bincount(split.train.items, minlength=len(content_NC)))
    size = min(max(1, min(MAX_NEW, round(SHARE * len(known)))), len(known) - 1)
    drawn = np.random.default_rng(seed).permutation(known)[: DRAWS * size]
    examples = split.validation.strided(-(-len(split.validation) // MAX_EXAMPLES))
    found = _search(ensemble, examples, exclude_seen)
    hits_SR2, targets_2 = np.zeros((len(SHARPNESS), 1 + len(RATES), 2)), np.zeros(2)
    likelihood_S = np.zeros(len(SHARPNESS))
    draws = [drawn[start : start + size] for start in range(0, len(drawn) - size + 1, size)]
    for draw, new in enumerate(track(draws, "Calibrating new items")):
        some, every = examples.strided(EVERY, draw % EVERY), slice(draw % EVERY, None, EVERY)
        listed = Ranked(found.items[every], found.scores[every])
        part = _Part.of(listed, content_NC, np.sort(new), some, exclude_seen)
        likelihood_S += [part.log_likelihood(sharpness) for sharpness in SHARPNESS]
        hits_SR2 += [[part.hits(rate, sharpness) for rate in (0.0, *RATES)] for sharpness in SHARPNESS]
        targets_2 += part.targets
    recalls_SR2 = hits_SR2 / np.maximum(targets_2, 1)
    (sharp, rate), defaults = _choose(recalls_SR2, targets_2[0], likelihood_S, cost), NewItemSettings()
    curve = [
        {"rate": rate, "new": new, "known": known}
        for rate, (new, known) in zip((0.0, *RATES), recalls_SR2[sharp].tolist(), strict=True)
    ]
    nothing_new = not recalls_SR2[sharp, rate, 0]
    chosen = defaults if nothing_new else NewItemSettings((0.0, *RATES)[rate], SHARPNESS[sharp])
    return FittedNewItems(chosen, curve)


def _choose(
    recalls_SR2: NDArray[np.float64], n_new: float, likelihood_S: NDArray[np.float64], cost: float
) -> tuple[int, int]:
    """The indices of sharpness and rate; see `fit_new_items`. Rate 0, the first, is none of the choices."""
    new_SR, known_SR = recalls_SR2[:, 1:, 0], recalls_SR2[:, 1:, 1]
    affordable_SR = known_SR >= (1 - cost) * recalls_SR2[0, 0, 1]
    if not affordable_SR.any():
        affordable_SR[:, 0] = True
    best = new_SR[affordable_SR].max()
    error = np.sqrt(best * (1 - best) / max(n_new, 1))
    good_SR = affordable_SR & (new_SR >= best - error)
    sharp = max(np.flatnonzero(good_SR.any(1)), key=lambda one: likelihood_S[one])
    rate = max(np.flatnonzero(good_SR[sharp]), key=lambda one: (new_SR[sharp, one], known_SR[sharp, one]))
    return int(sharp), int(rate) + 1


def _search(ensemble: Ensemble, examples: EvalExamples, exclude_seen: bool) -> Ranked:
    """What the experts recommend, [E, LISTED], when all items are known."""
    found, memory = [], FreeMemory()
    for rows in track(list(examples.batches(BATCH_SIZE)), "Searching, to calibrate new items"):
        found.append(ensemble.recommend(examples.histories(rows), LISTED, exclude_seen=exclude_seen))
        memory.limit()
    return Ranked(
        torch.cat([one.items for one in found]).cpu(), torch.cat([one.scores for one in found]).cpu()
    )


class _Part(NamedTuple):
    """What is recommended for some examples while some of the known items are treated as new."""

    n_known: int
    """Number of known items."""
    known_EK: Tensor
    """Log-probabilities of the best known items, in descending order; minus infinity where there are fewer."""
    affinity_EM: Tensor
    """Of the items treated as new (see `rqrec.retrieval.new_items`); minus infinity for those that are excluded."""
    sample_ES: Tensor
    """Affinity of a sample of the known items."""
    known_rank_E: Tensor
    """The 0-based rank of a known target, MISSED if it is not in the list or treated as new."""
    column_E: Tensor
    """The place of a target among the items treated as new; -1 for a known one."""

    @classmethod
    def of(
        cls,
        found: Ranked,
        content_NC: NDArray[np.floating],
        new: NDArray[np.int64],
        examples: EvalExamples,
        exclude_seen: bool,
    ) -> "_Part":
        """`found` is what the experts recommend, [E, LISTED], when these items (in ascending order) are known too."""
        column_N = np.full(len(content_NC), PADDING)
        column_N[new] = np.arange(len(new))
        is_new_N = torch.from_numpy(column_N != PADDING)
        items_EK, scores_EK = _without(found, is_new_N)
        is_target_EK = items_EK[:, :K] == torch.from_numpy(examples.targets)[:, None]
        rank_E = torch.where(is_target_EK.any(1), is_target_EK.int().argmax(1), MISSED)
        sample = sample_of(np.flatnonzero(column_N == PADDING))
        content = ContentExpert((content_NC,), len(content_NC), 1.0)
        compared_XC = torch.from_numpy(unit(content_NC[np.concatenate([new, sample])]))
        affinities, samples = [], []
        for rows in examples.batches(BATCH_SIZE):
            histories = examples.histories(rows)
            listed = Ranked(items_EK[rows], scores_EK[rows])
            affinity_BX = content.affinity(histories, compared_XC, listed)
            affinity_BM, sample_BS = affinity_BX.split([len(new), len(sample)], dim=1)
            if exclude_seen:
                items_BT = histories.items_BT
                exclude(
                    affinity_BM, torch.from_numpy(np.where(items_BT == PADDING, PADDING, column_N[items_BT]))
                )
            affinities.append(affinity_BM)
            samples.append(sample_BS)
        affinity_EM, sample_ES = torch.cat(affinities), torch.cat(samples)
        columns = torch.from_numpy(column_N[examples.targets])
        return cls(len(content_NC) - len(new), scores_EK[:, :K], affinity_EM, sample_ES, rank_E, columns)

    @property
    def targets(self) -> NDArray[np.float64]:
        """How many targets are treated as new, and how many are known."""
        new = float((self.column_E >= 0).sum())
        return np.array([new, len(self.column_E) - new])

    def _new_log_odds(self, rate: float, sharpness: float) -> Tensor:
        """Of each item that is treated as new against all known ones, [E, M]."""
        known_E = log_sum(sharpness * self.sample_ES, self.n_known)
        return sharpness * self.affinity_EM - known_E[:, None] + np.log(rate)

    def log_likelihood(self, sharpness: float) -> float:
        """The sum of the log-odds of the targets that are treated as new, at rate 1."""
        own_E = self._new_log_odds(1.0, sharpness).gather(1, self.column_E.clamp(min=0)[:, None])[:, 0]
        return float(own_E[(self.column_E >= 0) & own_E.isfinite()].sum())

    def hits(self, rate: float, sharpness: float) -> NDArray[np.float64]:
        """How many targets that are treated as new are among the first K, and how many known ones.

        Rate 0: new items are not recommended.
        """
        is_new_E = (self.column_E >= 0).numpy()
        if not rate:
            return np.array([0.0, recall_at(K, self.known_rank_E.numpy())[~is_new_E].sum()])
        # Ranks do not depend on what all probabilities are divided by.
        new_EM, known_EK = self._new_log_odds(rate, sharpness), self.known_EK
        own_E1 = new_EM.gather(1, self.column_E.clamp(min=0)[:, None])
        listed_E1 = known_EK.gather(1, self.known_rank_E.clamp(0, K - 1)[:, None])
        target_E1 = torch.where(torch.from_numpy(is_new_E)[:, None], own_E1, listed_E1)
        rank_E = ((new_EM > target_E1).sum(1) + (known_EK > target_E1).sum(1)).numpy()
        rank_E = np.where(is_new_E | (self.known_rank_E.numpy() != MISSED), rank_E, MISSED)
        hit_E = recall_at(K, rank_E)
        return np.array([hit_E[is_new_E].sum(), hit_E[~is_new_E].sum()])


def _without(found: Ranked, is_new_N: Tensor) -> tuple[Tensor, Tensor]:
    """The best `LIKE` of the lists without the new items, and their log-probabilities without these."""
    drop_EK = (found.items == PADDING) | is_new_N[found.items.clamp(min=0)]
    order_EK = drop_EK.int().argsort(dim=1, stable=True)
    scores_EK = found.scores.masked_fill(drop_EK, -torch.inf).gather(1, order_EK)
    items_EK = found.items.masked_fill(drop_EK, PADDING).gather(1, order_EK)
    of_new_E1 = found.scores.masked_fill(~drop_EK, -torch.inf).exp().sum(1, keepdim=True)
    return items_EK[:, :LIKE], scores_EK[:, :LIKE] - torch.log1p(-of_new_E1.clamp(max=1 - 1e-6))
