"""Baselines that need no training run, by the names used on the command line."""

import numpy as np
from numpy.typing import NDArray

from rqrec.data.sequences import Sequences
from rqrec.knn.content_knn import ContentKnn
from rqrec.knn.item_knn import ItemKnn
from rqrec.knn.popularity import Popularity
from rqrec.retrieval.ranking import ExhaustiveRecommender, ItemRecommender

BASELINES = ("popularity", "item_knn", "content_knn", "hybrid_knn")


def fit_baseline(
    name: str, train: Sequences, n_items: int, vectors_ND: NDArray[np.floating] | None = None
) -> ItemRecommender:
    """Fit the baseline `name` to training sequences; `vectors_ND` are the items' content embeddings.

    "hybrid_knn" is "item_knn" plus content neighbours, similar to those of a model's kNN mixture (but 200
    co-occurring neighbours per item instead of 50). Raises ValueError for an unknown name, and if "content_knn" or
    "hybrid_knn" is given no embeddings of these items.
    """
    if name == "popularity":
        return ExhaustiveRecommender(Popularity(train, n_items))
    if name == "item_knn":
        return ExhaustiveRecommender(ItemKnn(train, n_items))
    if name not in BASELINES:
        raise ValueError(f"Unknown baseline {name!r}; allowed are {', '.join(BASELINES)}.")
    if vectors_ND is None:
        raise ValueError(f"{name} compares items by their embeddings: give --embeddings.")
    if len(vectors_ND) != n_items:
        raise ValueError(
            f"There are {len(vectors_ND)} embeddings but {n_items} items. Use the embeddings of this dataset."
        )
    if name == "hybrid_knn":
        return ExhaustiveRecommender(ItemKnn(train, n_items, content_ND=vectors_ND))
    return ExhaustiveRecommender(ContentKnn(vectors_ND))
