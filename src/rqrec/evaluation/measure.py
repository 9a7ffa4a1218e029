"""All metrics of a recommender, computed in one pass over the examples.

The result holds a few numbers per example and two counters per item: about 40 MB for a million users.
Shapes: C examples, N items of the catalogue, K recommended items.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rqrec.core.arrays import read_npz
from rqrec.core.artifact import atomic_write
from rqrec.data.sequences import Histories, Sequences
from rqrec.data.splits import EvalExamples, targets_in_history
from rqrec.evaluation.evaluate import ranked_lists
from rqrec.evaluation.exposure import exposure
from rqrec.evaluation.groups import Groups, by_length, by_popularity, by_target
from rqrec.evaluation.metrics import ALL, CUTOFFS, MISSED, ranking_metrics, target_id_ranks, target_ranks
from rqrec.evaluation.significance import intervals
from rqrec.retrieval.ranking import ItemRecommender, Ranked, recommend_each

RANKS_FILE = "ranks.npz"
EXPOSURE_CUTOFF = 10  # the first items of a list, which count as shown to the user
GROUP_METRICS = ("recall@10", "ndcg@10")
ID_LEVEL_METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
NO_METRICS = {"metrics": None, "intervals": None}  # of a group without examples


@dataclass(frozen=True)
class EvalResult:
    """Raw results of one pass over the examples, from which all metrics follow."""

    users_C: NDArray[np.int64]
    """User index of each example."""
    targets_C: NDArray[np.int64]
    """Item index of each example's target."""
    ranks_C: NDArray[np.int64]
    """0-based rank of the target in a list of 20, MISSED if it is not there."""
    id_ranks_C: NDArray[np.int64] | None
    """The ID-level rank (see `target_id_ranks`); None for recommenders without semantic IDs."""
    lengths_C: NDArray[np.int64]
    """Number of items in each example's history."""
    shown_N: NDArray[np.int64]
    """How often each item was among the first ten recommended."""
    train_counts_N: NDArray[np.int64]
    """Training interactions of each item."""
    targets_in_history: int
    """Number of examples whose target is in their history: no hits while seen items are excluded."""
    other_ranks_C: NDArray[np.int64] | None = None
    """The ranks with the other value of `exclude_seen`; None if only one was measured."""

    def summary(self, seed: int = 0) -> dict[str, Any]:
        """All metrics as JSON values; `seed` is for the bootstrap intervals.

        `metrics` and `intervals` by name; `id_level`: the same at ID level; `other`: the same with the other value of
        `exclude_seen`; `exposure`: of the first ten; `groups`: tables by target, history length and popularity, with
        null metrics for a group without examples.
        """
        summary: dict[str, Any] = {
            "cases": len(self.ranks_C),
            "targets_in_history": self.targets_in_history,
            **_metrics(self.ranks_C, ALL, seed),
            "exposure": exposure(self.shown_N, self.train_counts_N),
            "groups": {
                "target": self._table(by_target(self.train_counts_N[self.targets_C]), seed),
                "history": self._table(by_length(self.lengths_C), seed),
                "popularity": self._table(by_popularity(self.targets_C, self.train_counts_N), seed),
            },
        }
        if self.id_ranks_C is not None:
            summary["id_level"] = {
                "note": "items with the same semantic ID, without the deduplication code, share one rank, and any "
                "of them is a hit; not comparable with item-level metrics",
                **_metrics(self.id_ranks_C, ID_LEVEL_METRICS, seed),
            }
        if self.other_ranks_C is not None:
            summary["other"] = _metrics(self.other_ranks_C, ALL, seed)
        return summary

    def _table(self, groups: Groups, seed: int) -> list[dict[str, Any]]:
        rows = []
        for name, members_C in groups.items():
            ranks = self.ranks_C[members_C]
            measured = _metrics(ranks, GROUP_METRICS, seed) if len(ranks) else NO_METRICS
            rows.append({"group": name, "cases": len(ranks), **measured})
        return rows

    def write(self, folder: Path) -> None:
        """Write the arrays (`ranks.npz`) into `folder`."""
        arrays = {name: value for name, value in vars(self).items() if value is not None}
        with atomic_write(folder / RANKS_FILE) as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def read(cls, folder: Path) -> "EvalResult":
        """Read what `write` wrote. Raises ValueError if it is damaged or from another version."""
        path = folder / RANKS_FILE
        arrays: dict[str, Any] = {"id_ranks_C": None, **read_npz(path)}
        try:
            found = cls(**arrays | {"targets_in_history": int(arrays["targets_in_history"])})
            lengths = {"C": len(found.ranks_C), "N": len(found.shown_N)}
            for name, array in arrays.items():
                length = lengths.get(name.rpartition("_")[2])
                if (
                    array is not None
                    and length is not None
                    and (array.dtype.kind, array.shape) != ("i", (length,))
                ):
                    raise ValueError(f"{name} has {array.dtype} of shape {array.shape}")
            if not ((found.targets_C >= 0) & (found.targets_C < lengths["N"])).all():
                raise ValueError("targets_C has items that are not in the catalogue")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged or from another version of rqrec ({error}). Recreate it with `rqrec evaluate "
                f"--force`."
            ) from error
        return found


def _metrics(ranks_C: NDArray[np.int64], names: Sequence[str], seed: int) -> dict[str, dict[str, Any]]:
    return {"metrics": ranking_metrics(ranks_C, names), "intervals": intervals(ranks_C, names, seed)}


def measure(
    recommender: ItemRecommender,
    examples: EvalExamples,
    train: Sequences,
    n_items: int,
    *,
    keys_N: NDArray[np.int64] | None = None,
    exclude_seen: bool = True,
    both: bool = False,
    batch_size: int = 128,
    description: str | None = None,
) -> EvalResult:
    """Rank the whole catalogue for every example, with the items of its history excluded or not (`both`: each).

    `train` are the training sequences under the same protocol; item popularity is counted on them. With
    `keys_N` (see `target_id_ranks`), ID-level ranks are computed as well. With `description`, progress is
    shown. Raises ValueError if there are no examples.
    """
    choices = (exclude_seen, not exclude_seen) if both else (exclude_seen,)
    (result,) = measure_each(
        lambda histories, k: [recommend_each(recommender, histories, k, choices)],
        examples,
        train,
        n_items,
        keys_N=keys_N,
        batch_size=batch_size,
        description=description,
    )
    return result


def measure_each(
    recommend: Callable[[Histories, int], Sequence[Sequence[Ranked]]],
    examples: EvalExamples,
    train: Sequences,
    n_items: int,
    *,
    keys_N: NDArray[np.int64] | None = None,
    batch_size: int = 128,
    description: str | None = None,
) -> list[EvalResult]:
    """`measure` for several recommenders that share their work.

    `recommend` gives for each of them its lists of k items: those that the headline metrics are computed from, and
    those with the other value of `exclude_seen`, if they are measured too.
    """
    if not len(examples):
        raise ValueError("There are no examples to evaluate: no user of this split has a held-out item.")
    targets_C = examples.targets
    ranks: list[list[NDArray[np.int64]]] = []  # by recommender, then by list
    id_ranks: list[NDArray[np.int64]] = []
    shown: list[NDArray[np.int64]] = []
    for rows, lists in ranked_lists(
        lambda histories: recommend(histories, max(CUTOFFS)),
        examples,
        batch_size=batch_size,
        description=description,
    ):
        if not ranks:
            ranks = [[np.full(len(examples), MISSED) for _ in one] for one in lists]
            id_ranks = [np.full(len(examples), MISSED) for _ in lists]
            shown = [np.zeros(n_items, dtype=np.int64) for _ in lists]
        for number, one in enumerate(lists):
            for ranks_C, items_BK in zip(ranks[number], one, strict=True):
                ranks_C[rows] = target_ranks(items_BK, targets_C[rows])
            if keys_N is not None:
                id_ranks[number][rows] = target_id_ranks(one[0], targets_C[rows], keys_N)
            first = one[0][:, :EXPOSURE_CUTOFF]
            shown[number] += np.bincount(first[first >= 0], minlength=n_items)
    return [
        EvalResult(
            users_C=examples.users,
            targets_C=targets_C,
            ranks_C=ranks_C,
            id_ranks_C=None if keys_N is None else id_ranks_C,
            lengths_C=examples.lengths,
            shown_N=shown_N,
            train_counts_N=np.bincount(train.items, minlength=n_items),
            targets_in_history=targets_in_history(examples),
            other_ranks_C=others[0] if others else None,
        )
        for (ranks_C, *others), id_ranks_C, shown_N in zip(ranks, id_ranks, shown, strict=True)
    ]
