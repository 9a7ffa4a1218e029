"""An index of item vectors, which finds most of the best items of a large catalogue without scoring every one.

The vectors are clustered by k-means, and a search scores the items of the clusters that are nearest to the state
(an inverted file of Faiss, arXiv 2401.08281). How many clusters it visits is chosen so that it finds `RECALL` of the
items that are found if all are scored; what it reaches is measured when the index is built.

Shapes: B states, N items of the index, D width of a vector, K items found, S items of a sample, or states that recall
is measured with.
"""

import logging
import math
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from rqrec.data.sequences import Histories
from rqrec.models.sasrec import SasRec
from rqrec.retrieval.sampling import sample_of

MIN_ITEMS = 200_000  # from which visiting some clusters is several times faster than scoring every item
RECALL = 0.99  # of the best FOUND items
FOUND = 100
STATES = 256
MAX_CLUSTERS = 4096  # so that the time to build grows with the number of items
TRAINED_ON = 40  # vectors for each cluster
ITERATIONS = 5  # of k-means
SAMPLE = 4096  # items from which the sum over those that a search did not find is estimated

_LOGGER = logging.getLogger(__name__)
_INDICES: WeakKeyDictionary[SasRec, "VectorIndex | None"] = WeakKeyDictionary()


class VectorIndex:
    """Finds items whose vectors have high products with a state; `recall` is what it reaches."""

    def __init__(self, vectors_ND: Tensor, states_SD: Tensor) -> None:
        """Build the index on the CPU.

        `states_SD` are like those that will be searched with. Raises ImportError if the package faiss-cpu is not
        installed.
        """
        import faiss

        self._faiss: Any = faiss
        n_items, width = vectors_ND.shape
        self.clusters = max(1, min(MAX_CLUSTERS, round(2 * math.sqrt(n_items))))
        vectors = vectors_ND.float().cpu().contiguous().numpy()
        self._index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(width), width, self.clusters, faiss.METRIC_INNER_PRODUCT
        )
        self._index.cp.niter, self._index.cp.seed = ITERATIONS, 0
        items_N = np.arange(n_items)
        self._index.train(vectors[sample_of(items_N, TRAINED_ON * self.clusters)])
        self._index.add(vectors)
        self.sample_S = torch.from_numpy(sample_of(items_N, SAMPLE))
        self._choose_probes(torch.from_numpy(vectors), states_SD.float().cpu())

    @classmethod
    def of(cls, model: SasRec) -> "VectorIndex":
        """The index of a model's items, whose recall is measured on the states after histories of one item."""
        items_S1 = sample_of(np.arange(model.config.n_items), STATES)[:, None]
        return cls(model.item_vectors(), model.encode(Histories(items_S1)))

    def __repr__(self) -> str:
        visited = f"{self.probes} of {self.clusters} clusters"
        return f"VectorIndex({self.n_items:,} items, {visited}, recall@{FOUND} {self.recall:.3f})"

    @property
    def n_items(self) -> int:
        """Number of items in the index; their ids are 0 to n_items - 1."""
        return self._index.ntotal

    def search(self, states_BD: Tensor, count: int, allowed_N: Tensor | None = None) -> Tensor:
        """At most `count` items of each state, int64 [B, count], padded with -1, by descending product.

        `allowed_N` (bool) says which items may be found.
        """
        selected = self._selected(allowed_N) if allowed_N is not None else None
        parameters = self._faiss.SearchParametersIVF(sel=selected, nprobe=self.probes)
        _, items_BK = self._index.search(states_BD.float().cpu().numpy(), count, params=parameters)
        return torch.from_numpy(items_BK).to(states_BD.device)

    def _selected(self, allowed_N: Tensor) -> Any:
        bits = np.packbits(allowed_N[: self.n_items].cpu().numpy(), bitorder="little")
        return self._faiss.IDSelectorBitmap(bits)

    def _choose_probes(self, vectors_ND: Tensor, states_SD: Tensor) -> None:
        """The number of clusters with which a search finds `RECALL` of the best items."""
        best_SK = (states_SD @ vectors_ND.T).topk(min(FOUND, self.n_items), dim=1).indices
        self.probes = 1
        while True:
            self.recall = _share_of(best_SK, self.search(states_SD, best_SK.shape[1]))
            if self.recall >= RECALL or self.probes == self.clusters:
                return
            self.probes = min(math.ceil(1.5 * self.probes), self.clusters)


def _share_of(best_SK: Tensor, found_SK: Tensor) -> float:
    """The share of the best items that were found."""
    found = [
        torch.isin(best_K, found_K).float().mean() for best_K, found_K in zip(best_SK, found_SK, strict=True)
    ]
    return float(torch.stack(found).mean())


def index_of(model: SasRec) -> VectorIndex | None:
    """The index of a model's items, built once; None if there are so few that scoring every item is fast."""
    if (n_items := model.config.n_items) < MIN_ITEMS:
        return None
    if model not in _INDICES:
        try:
            _INDICES[model] = VectorIndex.of(model)
        except ImportError:
            _INDICES[model] = None
            _LOGGER.warning(
                "Every one of %s items is scored for each user, since the package faiss-cpu is not installed: "
                "`pip install faiss-cpu` makes recommending faster.",
                f"{n_items:,}",
            )
        else:
            _LOGGER.info("%r", _INDICES[model])
    return _INDICES[model]
