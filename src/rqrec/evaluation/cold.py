"""Items that nobody had taken when everything was trained: chosen, taken out, and measured apart.

Shapes: N items of the catalogue, B histories, T items of a history, K recommended items.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories, Sequences
from rqrec.data.splits import EvalExamples
from rqrec.evaluation.measure import measure
from rqrec.evaluation.metrics import ranking_metrics
from rqrec.evaluation.significance import intervals
from rqrec.retrieval.ranking import ItemRecommender, Ranked

METRICS = ("recall@10",)


def choose_items(sequences: Sequences, n_items: int, share: float, seed: int) -> NDArray[np.bool_]:
    """Which items are held out, bool [N]: `share` of those that were ever taken, at random.

    Raises ValueError where that is no item, or all.
    """
    taken = np.unique(sequences.items)
    count = round(share * len(taken))
    if not 0 < count < len(taken):
        raise ValueError(f"A share of {share} of {len(taken)} items holds out {count}: choose another share.")
    held_N = np.zeros(n_items, dtype=bool)
    held_N[np.random.default_rng(seed).choice(taken, count, replace=False)] = True
    return held_N


def without_items(sequences: Sequences, held_N: NDArray[np.bool_]) -> Sequences:
    """Every user's sequence without the held-out items; a user may be left with none."""
    keep = ~held_N[sequences.items]
    offsets = np.concatenate([[0], np.cumsum(keep)])[sequences.offsets]
    return Sequences(sequences.items[keep], offsets, sequences.timestamps[keep], sequences.user_ids)


@dataclass(frozen=True)
class CatalogueSubset:
    """A recommender that knows some of a catalogue's items, by indices of its own.

    `places_N` int64: the index that it gives each item of the catalogue, PADDING where it knows it not; such
    an item is passed over in histories and never recommended.
    """

    recommender: ItemRecommender
    places_N: NDArray[np.int64]

    def recommend(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> Ranked:
        """The k best of the items that it knows, by the catalogue's indices."""
        items_BT = histories.items_BT
        places_BT = np.where(items_BT == PADDING, PADDING, self.places_N[items_BT])
        order_BT = np.argsort(places_BT == PADDING, axis=1, kind="stable")
        known = Histories(np.take_along_axis(places_BT, order_BT, axis=1))
        ranked = self.recommender.recommend(known, k, exclude_seen=exclude_seen)
        items = np.flatnonzero(self.places_N != PADDING)
        by_place = np.empty(len(items), dtype=np.int64)
        by_place[self.places_N[items]] = items
        found_BK = ranked.items.cpu().numpy()
        return Ranked(
            torch.from_numpy(np.where(found_BK == PADDING, PADDING, by_place[found_BK])), ranked.scores.cpu()
        )


def cold_and_warm(
    recommender: ItemRecommender,
    cases: EvalExamples,
    train: Sequences,
    held_N: NDArray[np.bool_],
    *,
    seed: int = 0,
    description: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Recall@10 with its interval over the cases whose target is held out ("cold") and over the others ("warm").

    Raises ValueError where there is no case of a kind.
    """
    measured = measure(recommender, cases, train, len(held_N), description=description)
    cold_C = held_N[measured.targets_C]
    found = {}
    for kind, ranks in (("cold", measured.ranks_C[cold_C]), ("warm", measured.ranks_C[~cold_C])):
        if not len(ranks):
            raise ValueError(f"No case has a {kind} target: hold out another share of the items.")
        found[kind] = {
            "cases": len(ranks),
            "metrics": ranking_metrics(ranks, METRICS),
            "intervals": intervals(ranks, METRICS, seed),
        }
    return found
