"""The map of a catalogue: a place for every item, and clusters that are named by what sets them apart.

Shapes: N items, L levels, D width of their vectors, M new items.
"""

import json
import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rqrec.data.nearest import unit
from rqrec.serving.cached_content import CachedContent
from rqrec.serving.catalog_view import CatalogView
from rqrec.serving.logs import LOG
from rqrec.serving.map_layout import MAX_LANDMARKS, cluster_counts, clusters_of, lay_out, place_between
from rqrec.serving.recommender import Recommender

SIDE = 65_535  # places are whole numbers from 0 to this
WORDS, EXAMPLES = 3, 2  # that name a cluster


class ItemMap:
    """The map of a recommender's items, made in a thread of its own when it is first asked for.

    `before` is the map of the catalogue that this one was changed from: its items keep their places.
    """

    def __init__(self, recommender: Recommender, view: CatalogView, before: "ItemMap | None" = None) -> None:
        self._recommender, self._view = recommender, view
        self._old_places = None
        if before is not None:
            self._old_places = before._old_places if before._places is None else before._places
        self._places: NDArray[np.float32] | None = None
        self._content: CachedContent | None = None
        self._failed: Exception | None = None
        self._lock, self._thread = threading.Lock(), threading.Thread(target=self._make, daemon=True)

    def content(self) -> CachedContent | None:
        """The map as JSON (see `schemas.Map`); None while it is being made, which the first call starts.

        Raises what stopped its making.
        """
        with self._lock:
            if self._failed:
                raise self._failed
            if self._thread.ident is None:
                self._thread.start()
            return self._content

    def _make(self) -> None:
        try:
            self._places = self._place()
            text = json.dumps(self._describe(self._places), separators=(",", ":")).encode()
            self._content = CachedContent(text, "application/json")
        except Exception as error:  # it is reported to those who wait for the map
            LOG.error("map not made", exc_info=error)
            self._failed = error

    def _place(self) -> NDArray[np.float32]:
        vectors_ND, old_N2 = vectors_of(self._recommender), self._old_places
        if old_N2 is None or not len(old_N2):
            return lay_out(vectors_ND)
        known = np.unique(np.linspace(0, len(old_N2) - 1, MAX_LANDMARKS).astype(np.int64))
        landmarks_ND, new_MD = unit(vectors_ND[known]), unit(vectors_ND[len(old_N2) :])
        return np.concatenate([old_N2, place_between(new_MD, landmarks_ND, old_N2[known])])

    def _describe(self, places_N2: NDArray[np.float32]) -> dict[str, Any]:
        items = np.flatnonzero(self._recommender.available)
        places_N2 = places_N2[items]
        x, y = np.rint(places_N2 * SIDE).astype(int).T.tolist()
        titles = self._recommender.titles
        return {
            "version": self._recommender.version,
            "side": SIDE,
            "item_ids": self._recommender.catalog.id_map.ids(items),
            "titles": [titles[item] for item in items.tolist()],
            "x": x,
            "y": y,
            "codes": self._recommender.table.codes_NL[items, 0].tolist(),
            "clusters": [
                self._cluster(level, items[members], places_N2[members])
                for level, count in enumerate(cluster_counts(len(items)))
                for members in members_of(clusters_of(places_N2, count))
            ],
        }

    def _cluster(
        self, level: int, items: NDArray[np.int64], places_N2: NDArray[np.float32]
    ) -> dict[str, Any]:
        x, y = np.rint(np.median(places_N2, axis=0) * SIDE).astype(int).tolist()
        words, examples = self._view.typical_words(items, WORDS), self._view.best_known(items, EXAMPLES)
        return {"level": level, "n_items": len(items), "x": x, "y": y, "words": words, "best_known": examples}


def vectors_of(recommender: Recommender) -> NDArray[np.floating]:
    """Vectors of all items [N, D]: those of the artefact, else what their codes mean.

    That is the sum of the tokenizer's code vectors if it was kept, and otherwise the model's embeddings of the codes.
    """
    artifact = recommender.artifact
    if artifact.vectors is not None:
        added = None if artifact.live is None else artifact.live.changes.vectors_MD
        vectors_ND = artifact.vectors.vectors_ND
        return vectors_ND if added is None else np.concatenate([vectors_ND, added])
    if artifact.tokenizer is None:
        return recommender.item_vectors()
    with torch.inference_mode():
        codes_NL = torch.from_numpy(recommender.table.codes_NL.astype(np.int64))
        return artifact.tokenizer.model.decode(codes_NL).float().numpy(force=True)


def members_of(groups_N: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The members of each group that has any, largest group first."""
    order = np.argsort(groups_N, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(groups_N[order])) + 1)
    return sorted((part for part in parts if len(part)), key=len, reverse=True)
