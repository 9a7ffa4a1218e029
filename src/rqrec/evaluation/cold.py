"""Cold items: hold items out of training, and measure cold and warm targets separately.

Shapes: N items of the catalogue, U users, M interactions, C examples, B histories, T items of a history, K
recommended items.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories, Sequences
from rqrec.data.splits import MIN_ITEMS
from rqrec.evaluation.measure import EvalResult
from rqrec.evaluation.metrics import ranking_metrics
from rqrec.evaluation.significance import intervals
from rqrec.retrieval.ranking import Ranked

METRICS = ("recall@10",)


def choose_items(sequences: Sequences, n_items: int, share: float, seed: int) -> NDArray[np.bool_]:
    """A mask of the items to hold out, bool [N]: a random fraction `share` of the items with interactions.

    Raises ValueError if that fraction comes to no item or to all of them.
    """
    interacted = np.unique(sequences.items)
    count = round(share * len(interacted))
    if not 0 < count < len(interacted):
        raise ValueError(
            f"A share of {share} of {len(interacted)} items holds out {count}: it must hold out at least one "
            f"item and leave at least one. Choose another share."
        )
    held_out_N = np.zeros(n_items, dtype=bool)
    held_out_N[np.random.default_rng(seed).choice(interacted, count, replace=False)] = True
    return held_out_N


def without_items(sequences: Sequences, held_out_N: NDArray[np.bool_]) -> Sequences:
    """Every user's sequence without the held-out items; a sequence may become empty."""
    return _where(sequences, ~held_out_N[sequences.items])


def warm_log(sequences: Sequences, held_out_N: NDArray[np.bool_]) -> Sequences:
    """The sequences without the held-out items, in which leave-one-out trains on no target of the complete sequences.

    Leave-one-out holds out the last two items of what is left of a user, and these include the targets. But it trains
    on all items of a user who is left with fewer than `MIN_ITEMS`: of these, the targets are left out.
    """
    is_warm_M = ~held_out_N[sequences.items]
    is_short_U = (without_items(sequences, held_out_N).lengths < MIN_ITEMS) & (sequences.lengths >= MIN_ITEMS)
    first_target_U = sequences.offsets[1:] - 2  # the validation target; the test target follows
    is_target_M = np.arange(len(sequences.items)) >= np.repeat(first_target_U, sequences.lengths)
    return _where(sequences, is_warm_M & ~(is_target_M & np.repeat(is_short_U, sequences.lengths)))


def _where(sequences: Sequences, keep_M: NDArray[np.bool_]) -> Sequences:
    offsets = np.concatenate([[0], np.cumsum(keep_M)])[sequences.offsets]
    return Sequences(sequences.items[keep_M], offsets, sequences.timestamps[keep_M], sequences.user_ids)


@dataclass(frozen=True)
class CatalogueSubset:
    """Translates between a catalogue and a recommender of some of its items, which has item indices of its own.

    `local_indices_N` int64: the recommender's index of each catalogue item, PADDING for items outside the
    subset. Those items are dropped from histories and never recommended.
    """

    local_indices_N: NDArray[np.int64]

    def local(self, histories: Histories) -> Histories:
        """Histories of catalogue items as the recommender reads them."""
        items_BT = histories.items_BT
        local_BT = np.where(items_BT == PADDING, PADDING, self.local_indices_N[items_BT])
        # A stable sort moves the dropped items to the end, as padding, and keeps the order of the others.
        order_BT = np.argsort(local_BT == PADDING, axis=1, kind="stable")
        local_items_BT = np.take_along_axis(local_BT, order_BT, axis=1)
        times_BT = histories.times_BT
        if times_BT is not None:
            times_BT = np.take_along_axis(times_BT, order_BT, axis=1)
            times_BT = np.where(local_items_BT == PADDING, PADDING, times_BT)
        return Histories(local_items_BT, times_BT, histories.user_ids)

    def catalogue(self, ranked: Ranked) -> Ranked:
        """What the recommender ranked, as catalogue items."""
        subset = np.flatnonzero(self.local_indices_N != PADDING)
        catalogue_indices = np.empty(len(subset), dtype=np.int64)
        catalogue_indices[self.local_indices_N[subset]] = subset
        local_BK = ranked.items.cpu().numpy()
        items_BK = np.where(local_BK == PADDING, PADDING, catalogue_indices[local_BK])
        return Ranked(torch.from_numpy(items_BK), ranked.scores.cpu())


def cold_and_warm(
    result: EvalResult, held_out_N: NDArray[np.bool_], seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Recall@10 with its interval, for examples with a held-out target ("cold") and for all others ("warm").

    Raises ValueError if either group has no examples.
    """
    cold_C = held_out_N[result.targets_C]
    groups = {}
    for group, ranks in (("cold", result.ranks_C[cold_C]), ("warm", result.ranks_C[~cold_C])):
        if not len(ranks):
            raise ValueError(f"No example has a {group} target: hold out another share of the items.")
        groups[group] = {
            "cases": len(ranks),
            "metrics": ranking_metrics(ranks, METRICS),
            "intervals": intervals(ranks, METRICS, seed),
        }
    return groups
