"""Everything that is measured of a recommender, in one pass over the cases.

What is kept is a few numbers a case and one count an item: a million users need no more than some 40 MB.
Shapes: C cases, N items of the catalogue, K recommended items.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rqrec.core.artifact import atomic_write
from rqrec.data.sequences import Sequences
from rqrec.data.splits import EvalExamples
from rqrec.evaluation.evaluate import ranked_lists
from rqrec.evaluation.exposure import exposure
from rqrec.evaluation.groups import Groups, by_length, by_popularity, by_target
from rqrec.evaluation.metrics import ALL, CUTOFFS, MISSED, ranking_metrics, target_id_ranks, target_ranks
from rqrec.evaluation.significance import intervals
from rqrec.retrieval.ranking import ItemRecommender

RANKS_FILE = "ranks.npz"
SHOWN = 10  # items of a list that count as shown
BY_GROUP = ("recall@10", "ndcg@10")
BY_ID = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")


@dataclass(frozen=True)
class EvalResult:
    """What a pass over the cases leaves.

    `users_C`, `targets_C` int64: user and item index of each case. `ranks_C` int64: the target's 0-based
    place in a list of 20, MISSED where it is not there; `id_ranks_C` the same by semantic ID, None where
    there are none. `lengths_C`: items of the history. `shown_N`: how often an item was among the first ten.
    `train_counts_N`: its training interactions.
    """

    users_C: NDArray[np.int64]
    targets_C: NDArray[np.int64]
    ranks_C: NDArray[np.int64]
    id_ranks_C: NDArray[np.int64] | None
    lengths_C: NDArray[np.int64]
    shown_N: NDArray[np.int64]
    train_counts_N: NDArray[np.int64]

    def facts(self, seed: int = 0) -> dict[str, Any]:
        """All figures, as JSON values. `seed` is that of the intervals.

        `metrics` and `intervals` by name; `id_level` the same of semantic IDs; `exposure` of the first ten;
        `groups`: tables by target, history length and popularity, null where a kind has no cases.
        """
        facts: dict[str, Any] = {
            "cases": len(self.ranks_C),
            "metrics": ranking_metrics(self.ranks_C, ALL),
            "intervals": intervals(self.ranks_C, ALL, seed),
            "exposure": exposure(self.shown_N, self.train_counts_N),
            "groups": {
                "target": self._table(by_target(self.train_counts_N[self.targets_C]), seed),
                "history": self._table(by_length(self.lengths_C), seed),
                "popularity": self._table(by_popularity(self.targets_C, self.train_counts_N), seed),
            },
        }
        if self.id_ranks_C is not None:
            facts["id_level"] = {
                "note": "semantic IDs without the deduplication code: items that share one count as one "
                "place, and any of them as a hit; not comparable with item-level figures",
                "metrics": ranking_metrics(self.id_ranks_C, BY_ID),
                "intervals": intervals(self.id_ranks_C, BY_ID, seed),
            }
        return facts

    def _table(self, groups: Groups, seed: int) -> list[dict[str, Any]]:
        rows = []
        for name, members_C in groups.items():
            ranks = self.ranks_C[members_C]
            some = len(ranks) > 0
            rows.append(
                {
                    "group": name,
                    "cases": len(ranks),
                    "metrics": ranking_metrics(ranks, BY_GROUP) if some else None,
                    "intervals": intervals(ranks, BY_GROUP, seed) if some else None,
                }
            )
        return rows

    def write(self, folder: Path) -> None:
        """Write the arrays (`ranks.npz`) into `folder`."""
        arrays = {name: value for name, value in vars(self).items() if value is not None}
        with atomic_write(folder / RANKS_FILE) as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def read(cls, folder: Path) -> "EvalResult":
        """Read what `write` wrote."""
        with np.load(folder / RANKS_FILE, allow_pickle=False) as arrays:
            return cls(**{"id_ranks_C": None, **arrays})


def measure(
    recommender: ItemRecommender,
    cases: EvalExamples,
    train: Sequences,
    n_items: int,
    *,
    keys_N: NDArray[np.int64] | None = None,
    exclude_seen: bool = True,
    batch_size: int = 128,
    description: str | None = None,
) -> EvalResult:
    """Rank the whole catalogue for every case.

    `train` are the training sequences of the same split: how often an item occurs there makes it popular or
    cold. `keys_N` (see `target_id_ranks`) asks for ranks by semantic ID too. With `description` the progress
    is shown. Raises ValueError where there are no cases.
    """
    if not len(cases):
        raise ValueError("There are no cases to evaluate: no user of this split has a held-out item.")
    targets_C = cases.targets
    ranks_C = np.full(len(cases), MISSED)
    id_ranks_C = None if keys_N is None else ranks_C.copy()
    shown_N = np.zeros(n_items, dtype=np.int64)
    for rows, items_BK in ranked_lists(
        recommender,
        cases,
        max(CUTOFFS),
        exclude_seen=exclude_seen,
        batch_size=batch_size,
        description=description,
    ):
        ranks_C[rows] = target_ranks(items_BK, targets_C[rows])
        if keys_N is not None and id_ranks_C is not None:
            id_ranks_C[rows] = target_id_ranks(items_BK, targets_C[rows], keys_N)
        shown = items_BK[:, :SHOWN]
        shown_N += np.bincount(shown[shown >= 0], minlength=n_items)
    return EvalResult(
        users_C=cases.users,
        targets_C=targets_C,
        ranks_C=ranks_C,
        id_ranks_C=id_ranks_C,
        lengths_C=cases.lengths,
        shown_N=shown_N,
        train_counts_N=np.bincount(train.items, minlength=n_items),
    )
