"""Users of a model's dataset with what they took next, and how well known items are.

Shapes: N items.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rqrec.data.splits import get_protocol
from rqrec.retrieval.model_items import dataset_sequences, model_protocol
from rqrec.serving.recommender import Recommender

SAMPLE_USERS = 12
MIN_ITEMS = 3  # in the history of a sample user
MAX_ITEMS = 50  # most recent ones that are shown
MAX_RANK = 100  # a next item after it counts as not recommended


class SampleUser(NamedTuple):
    """A user whose next item is known."""

    user_id: str
    items: tuple[int, ...]
    """Indices of the last items of the history, oldest first."""
    next_item: int
    """Index of the item that followed: the user's test example."""
    rank: int | None
    """Its place among the recommendations for these items, from 1; None if it is not among the first MAX_RANK."""


def fame(recommender: Recommender) -> NDArray[np.float64]:
    """How well known each item is, float64 [N]: how often it was taken in training.

    Where that is not known, it is the probability as a first item, of the most probable ones.
    """
    if recommender.item_counts is not None:
        return recommender.item_counts.astype(np.float64)
    fame_N = np.zeros(len(recommender.catalog))
    (first,) = recommender.recommend([[]], MAX_RANK, timestamps=[[]])
    items = recommender.catalog.id_map.indices([item.item_id for item in first])
    fame_N[items] = np.exp([item.score for item in first])
    return fame_N


def sample_users(source: Path, recommender: Recommender) -> list[SampleUser]:
    """A few users with test examples, evenly spread over the dataset; none without a dataset with such users."""
    sequences = dataset_sequences(source)
    if sequences is None:
        return []
    try:
        examples = get_protocol(model_protocol(source))(sequences).test
    except ValueError:  # no user has enough items
        return []
    long = np.flatnonzero(examples.lengths >= MIN_ITEMS)
    if not len(long):
        return []
    chosen = long[np.unique(np.linspace(0, len(long) - 1, SAMPLE_USERS).astype(int))]
    users = [sequences.user_ids[user] for user in examples.users[chosen].tolist()]
    ends = examples.ends[chosen]
    starts = np.maximum(examples.starts[chosen], ends - MAX_ITEMS)
    histories = [tuple(sequences.items[a:b].tolist()) for a, b in zip(starts, ends, strict=True)]
    times = None
    if sequences.times is not None:
        times = [tuple(sequences.times[a:b].tolist()) for a, b in zip(starts, ends, strict=True)]
    elif recommender.artifact.needs_times:
        return []
    ids = recommender.catalog.id_map
    targets = examples.targets[chosen].tolist()
    recommended = recommender.recommend([ids.ids(items) for items in histories], MAX_RANK, timestamps=times)
    samples = []
    for user, history, target, found in zip(users, histories, targets, recommended, strict=True):
        (target_id,) = ids.ids([target])
        ranks = (rank for rank, item in enumerate(found, start=1) if item.item_id == target_id)
        samples.append(SampleUser(user, history, target, next(ranks, None)))
    return samples
