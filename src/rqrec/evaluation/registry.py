"""Baselines that need no training run, by the names used on the command line.

Shapes: N items, D width of a vector.
"""

import numpy as np
from numpy.typing import NDArray

from rqrec.data.splits import Split
from rqrec.knn.content_knn import ContentKnn
from rqrec.knn.fit import fit_knn_index
from rqrec.knn.item_knn import ItemKnn
from rqrec.knn.popularity import Popularity
from rqrec.retrieval.ranking import ExhaustiveRecommender, ItemRecommender

BASELINES = ("popularity", "item_knn", "content_knn", "hybrid_knn")


def fit_baseline(
    name: str,
    split: Split,
    n_items: int,
    vectors_ND: NDArray[np.floating] | None = None,
    *,
    exclude_seen: bool = True,
) -> ItemRecommender:
    """Fit the baseline `name` to a split; `vectors_ND` are the items' content embeddings.

    "item_knn" ranks by the kNN index of co-occurrence, "hybrid_knn" by that of co-occurrence and content: the same
    index that the expert "neighbours" of a joined model has. `exclude_seen` is whether seen items are left out when
    the weight of content is chosen on validation. Raises ValueError for an unknown name, and if "content_knn" or
    "hybrid_knn" is given no embeddings of these items.
    """
    if name == "popularity":
        return ExhaustiveRecommender(Popularity(split.train, n_items))
    if name == "item_knn":
        return ExhaustiveRecommender(ItemKnn(fit_knn_index(split, n_items), split.train))
    if name not in BASELINES:
        raise ValueError(f"Unknown baseline {name!r}; allowed are {', '.join(BASELINES)}.")
    if vectors_ND is None:
        raise ValueError(f"{name} compares items by their embeddings: give --embeddings.")
    if len(vectors_ND) != n_items:
        raise ValueError(
            f"There are {len(vectors_ND)} embeddings but {n_items} items. Use the embeddings of this dataset."
        )
    if name == "hybrid_knn":
        index = fit_knn_index(split, n_items, vectors_ND, exclude_seen=exclude_seen)
        return ExhaustiveRecommender(ItemKnn(index, split.train))
    return ExhaustiveRecommender(ContentKnn(vectors_ND))
