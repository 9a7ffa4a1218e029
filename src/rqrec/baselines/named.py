"""The baselines that need no training run, by the names that commands give them."""

import numpy as np
from numpy.typing import NDArray

from rqrec.baselines.content_knn import ContentKnn
from rqrec.baselines.item_knn import ItemKnn
from rqrec.baselines.popularity import Popularity
from rqrec.data.sequences import Sequences

BASELINES = ("popularity", "item_knn", "content_knn")
Baseline = Popularity | ItemKnn | ContentKnn


def baseline_named(
    name: str, train: Sequences, n_items: int, vectors_ND: NDArray[np.floating] | None = None
) -> Baseline:
    """The baseline of that name, fitted to training sequences; `vectors_ND` are the items' embeddings.

    Raises ValueError with the names that exist, and where "content_knn" has no embeddings of these items.
    """
    if name == "popularity":
        return Popularity(train, n_items)
    if name == "item_knn":
        return ItemKnn(train, n_items)
    if name != "content_knn":
        raise ValueError(f"There is no baseline {name!r}; allowed are {', '.join(BASELINES)}.")
    if vectors_ND is None:
        raise ValueError("content_knn compares items by their embeddings: give --embeddings.")
    if len(vectors_ND) != n_items:
        raise ValueError(
            f"There are {len(vectors_ND)} embeddings but {n_items} items: they don't belong together."
        )
    return ContentKnn(vectors_ND)
