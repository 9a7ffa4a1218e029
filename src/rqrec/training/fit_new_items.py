"""Chooses on validation how new items compete, with known items in their place.

Some of the known items are treated as new: the experts may not recommend them, and they are recommended by their
content alone, as items that come after the training are. No expert is trained for it, so the experts know these items
as parts of histories, in which new items are not yet.

Shapes: B histories, E examples, K items of a list, M items treated as new, N items of the catalogue, C width of
content.
"""

from dataclasses import asdict
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rqrec.core.progress import track
from rqrec.data.ids import PADDING
from rqrec.data.nearest import unit
from rqrec.data.splits import EvalExamples, Split
from rqrec.evaluation.metrics import MISSED, recall_at
from rqrec.retrieval.constraints import ItemRules
from rqrec.retrieval.ensemble import Ensemble
from rqrec.retrieval.experts import exclude
from rqrec.retrieval.new_items import LIKE, ContentExpert, NewItemSettings, log_sum_of_known, sample_of

SHARE = 0.05  # of the known items that are treated as new at a time
DRAWS = 3  # each for another third of the examples: it matters which items are drawn
MAX_NEW = 1_000
MAX_EXAMPLES = 10_000
RATES = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
SHARPNESS = (0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0)
BATCH_SIZE = 128
K = 10  # of recall


class FittedNewItems(NamedTuple):
    """How new items compete, and what other rates would gain and lose."""

    settings: NewItemSettings
    curve: list[dict[str, float]]
    """By rate, with the sharpness that is best for new items: `rate`, `sharpness`, and recall@10 of targets that are
    treated as `new` and of `known` ones. The first row has no new items."""


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
    """The settings with the highest validation recall@10 of new items that known ones can afford.

    They may lose the share `cost` of their own recall@10. If they lose more even at the lowest rate, that is taken.
    """
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(np.bincount(split.train.items, minlength=len(content_NC)))
    size = min(max(1, min(MAX_NEW, round(SHARE * len(known)))), len(known) - 1)
    examples = split.validation.strided(-(-len(split.validation) // MAX_EXAMPLES))
    parts = []
    for draw in range(DRAWS):
        new = np.sort(rng.choice(known, size=size, replace=False))
        parts.append(_Part.of(ensemble, content_NC, new, examples.strided(DRAWS, draw), exclude_seen))
    targets = np.maximum(sum((part.targets for part in parts), start=np.zeros(2)), 1)

    def row(settings: NewItemSettings | None) -> dict[str, float]:
        hits = sum((part.hits(settings) for part in parts), start=np.zeros(2))
        new_recall, known_recall = (hits / targets).tolist()
        how = {"rate": 0.0, "sharpness": 0.0} if settings is None else asdict(settings)
        return {**how, "new": new_recall, "known": known_recall}

    without = row(None)
    rows = [row(NewItemSettings(rate, sharpness)) for rate, sharpness in product(RATES, SHARPNESS)]
    affordable = [one for one in rows if one["known"] >= (1 - cost) * without["known"]] or rows[:1]
    chosen = max(affordable, key=_quality)
    best = [max((one for one in rows if one["rate"] == rate), key=_quality) for rate in RATES]
    return FittedNewItems(NewItemSettings(chosen["rate"], chosen["sharpness"]), [without, *best])


def _quality(row: dict[str, float]) -> tuple[float, float, float]:
    """What makes settings better; where nothing tells them apart, the defaults are preferred."""
    defaults = asdict(NewItemSettings())
    return row["new"], row["known"], -sum(abs(np.log(row[name] / value)) for name, value in defaults.items())


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
        ensemble: Ensemble,
        content_NC: NDArray[np.floating],
        new: NDArray[np.int64],
        examples: EvalExamples,
        exclude_seen: bool,
    ) -> "_Part":
        allowed_N = torch.ones(len(content_NC), dtype=torch.bool, device=ensemble.device)
        allowed_N[new] = False
        column_N = np.full(len(content_NC), PADDING)
        column_N[new] = np.arange(len(new))
        sample = sample_of(np.flatnonzero(allowed_N.numpy(force=True)))
        content = ContentExpert((content_NC,), len(content_NC), 1.0)
        compared_XC = torch.from_numpy(unit(content_NC[np.concatenate([new, sample])]))
        lists, affinities, samples, ranks = [], [], [], []
        for rows in track(list(examples.batches(BATCH_SIZE)), "Calibrating new items"):
            histories = examples.histories(rows)
            found = ensemble.recommend(histories, LIKE, exclude_seen=exclude_seen, rules=ItemRules(allowed_N))
            lists.append(found.scores[:, :K].cpu())
            is_target_BK = found.items[:, :K].cpu() == torch.from_numpy(examples.targets[rows])[:, None]
            ranks.append(torch.where(is_target_BK.any(1), is_target_BK.int().argmax(1), MISSED))
            affinity_BX = content.affinity(histories, compared_XC, found).cpu()
            affinity_BM, sample_BS = affinity_BX.split([len(new), len(sample)], dim=1)
            if exclude_seen:
                items_BT = histories.items_BT
                exclude(
                    affinity_BM, torch.from_numpy(np.where(items_BT == PADDING, PADDING, column_N[items_BT]))
                )
            affinities.append(affinity_BM)
            samples.append(sample_BS)
        columns = torch.from_numpy(column_N[examples.targets])
        known = len(content_NC) - len(new)
        joined = torch.cat(lists), torch.cat(affinities), torch.cat(samples), torch.cat(ranks)
        return cls(known, *joined, columns)

    @property
    def targets(self) -> NDArray[np.float64]:
        """How many targets are treated as new, and how many are known."""
        new = float((self.column_E >= 0).sum())
        return np.array([new, len(self.column_E) - new])

    def hits(self, settings: NewItemSettings | None) -> NDArray[np.float64]:
        """How many targets that are treated as new are among the first K, and how many known ones.

        None: new items are not recommended.
        """
        is_new_E = (self.column_E >= 0).numpy()
        if settings is None:
            return np.array([0.0, recall_at(K, self.known_rank_E.numpy())[~is_new_E].sum()])
        # Ranks do not depend on what all of them are divided by.
        known_E = log_sum_of_known(settings.sharpness * self.sample_ES, self.n_known)
        new_EM = settings.sharpness * self.affinity_EM - known_E[:, None] + np.log(settings.rate)
        known_EK = self.known_EK
        own_E1 = new_EM.gather(1, self.column_E.clamp(min=0)[:, None])
        listed_E1 = known_EK.gather(1, self.known_rank_E.clamp(0, K - 1)[:, None])
        target_E1 = torch.where(torch.from_numpy(is_new_E)[:, None], own_E1, listed_E1)
        rank_E = ((new_EM > target_E1).sum(1) + (known_EK > target_E1).sum(1)).numpy()
        rank_E = np.where(is_new_E | (self.known_rank_E.numpy() != MISSED), rank_E, MISSED)
        hit_E = recall_at(K, rank_E)
        return np.array([hit_E[is_new_E].sum(), hit_E[~is_new_E].sum()])
