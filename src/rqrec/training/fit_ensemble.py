"""Chooses on validation how experts are joined: their powers, and the share of neighbours.

Shapes: B histories, E examples, C candidates.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise, product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rqrec.core.memory import FreeMemory
from rqrec.core.progress import track
from rqrec.data.splits import EvalExamples
from rqrec.evaluation.metrics import MISSED, ndcg_at, ranking_metrics
from rqrec.retrieval.constraints import Constraints
from rqrec.retrieval.ensemble import Ensemble, ExpertSettings, join

PARTS = 10  # the powers of the product's factors are multiples of a tenth that sum to one
SCALES = (0.5, 0.7, 1.0, 1.4)  # of all these powers, once neighbours are mixed in
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
POWERS = (1.0, 2.0, 3.0, 4.0)  # of the neighbours' probabilities
BATCH_SIZE = 128
CUTOFF = 10  # of NDCG
STANDARD_ERRORS = 2.0  # by which a mixture may be below the best one: so little is a matter of chance

Settings = dict[str, ExpertSettings]


class FittedEnsemble(NamedTuple):
    """How the experts are joined, and what that is worth."""

    settings: Settings
    metrics: dict[str, float]
    """Of the joined experts on the examples that chose the settings, which flatters them."""


@torch.inference_mode()
def fit_ensemble(
    ensemble: Ensemble, validation: EvalExamples, *, exclude_seen: bool = True, users: int | None = None
) -> FittedEnsemble:
    """The settings of the ensemble's experts, by their validation NDCG@10.

    First the powers of the trained experts, whose probabilities are multiplied; then, with these powers, the share
    and the power of each mixed-in expert (whose share is not None) and one scale of all the others' powers. Of the
    mixtures within two standard errors of the best, the one that relies least on the trained experts is taken (like
    the rule of one standard error in L. Breiman et al., Classification and Regression Trees, 1984, section 3.4.3),
    because they lose more than neighbours do on items that come later than those of the validation
    (docs/experiments.md). One search per example (every n-th, at most `users`) serves all combinations.
    """
    examples = validation.strided(-(-len(validation) // (users or len(validation))))
    found = _Found.of(ensemble, examples, exclude_seen)
    mixed = [name for name, one in ensemble.settings.items() if one.share is not None]
    trained = [name for name in ensemble.experts if name not in mixed]
    best: Settings = found.best(_products(trained), "Weighting the trained experts") if trained else {}
    for name in mixed:
        best = found.first_of_the_best(_mixtures(best, name), f"Weighting the {name}")
    return FittedEnsemble(best, found.metrics(best))


def _products(names: Sequence[str]) -> Iterator[Settings]:
    """Every division of PARTS parts among experts that gives each at least one."""
    for cuts in combinations(range(1, PARTS), len(names) - 1):
        bounds = (0, *cuts, PARTS)
        powers = [(end - start) / PARTS for start, end in pairwise(bounds)]
        yield {name: ExpertSettings(power) for name, power in zip(names, powers, strict=True)}


def _mixtures(others: Settings, name: str) -> Iterator[Settings]:
    """All combinations, those that rely least on the others first: they are less sure, and have less of a share."""
    for scale, share, power in product(SCALES if others else (1.0,), SHARES[::-1], POWERS[::-1]):
        scaled = {
            other: ExpertSettings(round(one.power * scale, 3), one.share) if one.share is None else one
            for other, one in others.items()
        }
        yield {**scaled, name: ExpertSettings(power, share)}


class _Found:
    """What the experts say of the candidates, for the examples whose target is one of them."""

    def __init__(self, log_p: Mapping[str, Tensor], is_target_EC: Tensor, missed: int) -> None:
        self._log_p, self._is_target_EC, self._missed = log_p, is_target_EC, missed

    @classmethod
    def of(cls, ensemble: Ensemble, examples: EvalExamples, exclude_seen: bool) -> "_Found":
        parts: dict[str, list[Tensor]] = {name: [] for name in ensemble.experts}
        targets, memory = [], FreeMemory()
        for rows in track(list(examples.batches(BATCH_SIZE)), "Joining the experts"):
            candidates = ensemble.candidates(
                examples.histories(rows), CUTOFF, Constraints(exclude_seen=exclude_seen)
            )
            targets_B = torch.from_numpy(examples.targets[rows]).to(candidates.items_BC.device)
            is_target_BC = candidates.items_BC == targets_B[:, None]
            reached_B = is_target_BC.any(1)
            targets.append(is_target_BC[reached_B])
            for name, log_p_BC in candidates.log_p.items():
                parts[name].append(log_p_BC[reached_B])
            memory.limit()
        width = max(part.shape[1] for part in targets)
        return cls(
            {name: _stacked(each, width, -torch.inf) for name, each in parts.items()},
            reached := _stacked(targets, width, False),
            len(examples) - len(reached),
        )

    def best(self, choices: Iterator[Settings], description: str) -> Settings:
        """The settings with the highest NDCG@10; the first of equals."""
        return max(track(list(choices), description), key=self._ndcg_sum)

    def first_of_the_best(self, choices: Iterator[Settings], description: str) -> Settings:
        """The first settings whose NDCG@10 is hardly below the best, by standard errors of the difference."""
        tried = list(choices)
        # Ranks below the cutoff are all the same, so they fit into a byte.
        ranks = [
            self._ranks(settings).clip(max=CUTOFF).astype(np.uint8) for settings in track(tried, description)
        ]
        best_E = max(map(_ndcg, ranks), key=lambda ndcg_E: ndcg_E.sum())
        close = (self._is_close(_ndcg(ranks_E), best_E) for ranks_E in ranks)
        return next(settings for settings, is_close in zip(tried, close, strict=True) if is_close)

    def _is_close(self, ndcg_E: NDArray[np.float64], best_E: NDArray[np.float64]) -> bool:
        """Whether NDCG is at most so many standard errors of the paired difference lower, over all examples."""
        below_E = np.append(best_E - ndcg_E, np.zeros(self._missed))
        return bool(below_E.mean() <= STANDARD_ERRORS * below_E.std() / np.sqrt(len(below_E)))

    def metrics(self, settings: Settings) -> dict[str, float]:
        """The mean metrics over all examples, those whose target is no candidate included."""
        return ranking_metrics(np.concatenate([self._ranks(settings), np.full(self._missed, MISSED)]))

    def _ndcg_sum(self, settings: Settings) -> float:
        return float(_ndcg(self._ranks(settings)).sum())

    def _ranks(self, settings: Settings) -> NDArray[np.int64]:
        """The 0-based rank of each target among the candidates, int64 [E]."""
        log_p_EC = join({name: self._log_p[name] for name in settings}, settings)
        target_E1 = log_p_EC[self._is_target_EC][:, None]
        return (log_p_EC > target_E1).sum(1).numpy(force=True)


def _ndcg(ranks_E: NDArray[np.integer]) -> NDArray[np.float64]:
    """NDCG@10 of each example."""
    return ndcg_at(CUTOFF, ranks_E.astype(np.int64))


def _stacked(parts: Sequence[Tensor], width: int, padding: float) -> Tensor:
    """Matrices below each other, padded on the right to the same width."""
    return torch.cat([functional.pad(part, (0, width - part.shape[1]), value=padding) for part in parts])
