"""An index of each item's nearest neighbours, which retrieves candidates for a history.

Shapes: B batch, T items of a history, N items, P new items, M neighbours of an item (or of a history), R = T x M, K
items whose scores are explained.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional

from rqrec.core.artifact import atomic_write, read_json, write_json
from rqrec.core.tensors import read_tensors
from rqrec.core.values import Config, NonNegativeFloat, PositiveInt, Range
from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories, gather_right_padded
from rqrec.knn.counts import COUNTS, NEIGHBOURS_FILE

SETTINGS_FILE = "knn.json"


@dataclass(frozen=True)
class KnnSettings(Config):
    """How candidates are scored.

    Raises ValueError on values out of range.
    """

    decay: Annotated[float, Range(0, 1, above=True)] = 0.6
    """Weight of an item of the history relative to the item after it, above 0 and at most 1."""
    max_items: PositiveInt = 20
    """Number of most recent items of a history whose neighbours are candidates, at least 1."""
    content_weight: NonNegativeFloat = 0.0
    """Weight of content cosines relative to co-occurrence similarities, at least 0. The stored similarities
    already include it."""


class Neighbours(NamedTuple):
    """The neighbours of the items of each history in descending order of score, ties by item index."""

    items_BM: Tensor
    """Item indices int64, padded with PADDING."""
    scores_BM: Tensor
    """float32, above 0; 0 at padding."""


@dataclass(frozen=True)
class KnnIndex:
    """The nearest neighbours of each item (see `rqrec.knn.graph`)."""

    neighbours_NM: Tensor
    """int32, padded with PADDING."""
    similarity_NM: Tensor
    """float32, 0 at padding."""
    settings: KnnSettings = KnnSettings()
    counts_N: Tensor | None = None
    """int64: how often each item occurs in training, for histories without neighbours; None in older artefacts."""

    @classmethod
    def from_similarity(
        cls, similarity_NN: csr_array, counts_N: NDArray[np.integer] | None = None
    ) -> "KnnIndex":
        """Build from the sparse similarity of each item (row) to its neighbours (see `rqrec.knn.graph`)."""
        starts_N, lengths_N = similarity_NN.indptr[:-1], np.diff(similarity_NN.indptr)
        cells_NM = gather_right_padded(np.arange(similarity_NN.nnz), starts_N, lengths_N)
        inside_NM = cells_NM != PADDING
        neighbours_NM = np.full(cells_NM.shape, PADDING, dtype=np.int32)
        neighbours_NM[inside_NM] = similarity_NN.indices[cells_NM[inside_NM]]
        similarity_NM = np.zeros(cells_NM.shape, dtype=np.float32)
        similarity_NM[inside_NM] = similarity_NN.data[cells_NM[inside_NM]]
        counts = None if counts_N is None else torch.from_numpy(counts_N.astype(np.int64))
        return cls(torch.from_numpy(neighbours_NM), torch.from_numpy(similarity_NM), counts_N=counts)

    def __len__(self) -> int:
        return len(self.neighbours_NM)

    def with_settings(self, **changes: Any) -> "KnnIndex":
        """The same neighbours with some settings changed."""
        return replace(self, settings=replace(self.settings, **changes))

    def with_rows(self, neighbours_PM: Tensor, similarity_PM: Tensor) -> "KnnIndex":
        """The index with P more items at the end, whose neighbours are these; nobody has them as neighbours.

        Rows are padded or cut to the width of the index.
        """
        width = self.neighbours_NM.shape[1]
        missing = max(0, width - neighbours_PM.shape[1])
        rows_PM = functional.pad(neighbours_PM[:, :width].int(), (0, missing), value=PADDING)
        scores_PM = functional.pad(similarity_PM[:, :width].float(), (0, missing))
        return replace(
            self,
            neighbours_NM=torch.cat([self.neighbours_NM, rows_PM]),
            similarity_NM=torch.cat([self.similarity_NM, scores_PM]),
            counts_N=None if self.counts_N is None else functional.pad(self.counts_N, (0, len(rows_PM))),
        )

    def to(self, device: torch.device | str) -> "KnnIndex":
        """The index on another device."""
        return replace(
            self,
            neighbours_NM=self.neighbours_NM.to(device),
            similarity_NM=self.similarity_NM.to(device),
            counts_N=None if self.counts_N is None else self.counts_N.to(device),
        )

    def contributions(self, histories: Histories, items_BK: Tensor) -> Tensor:
        """What each of the last `max_items` items of a history adds to the score of K items, float32 [B, K, T]."""
        items_BT, weights_BT = self._weighted(histories)
        neighbours_BTM = self.neighbours_NM[items_BT.clamp(min=0)]
        scores_BTM = self.similarity_NM[items_BT.clamp(min=0)] * weights_BT[:, :, None]
        (n_batch, n_items), (n_recent, n_neighbours) = items_BK.shape, neighbours_BTM.shape[1:]
        parts_BR = scores_BTM.new_zeros(n_batch, n_items * n_recent)
        if not n_items:
            return parts_BR.view(n_batch, 0, n_recent)
        # Each neighbour is looked up among the items, of which there may be a hundred.
        sorted_BK, neighbours_BR = items_BK.sort(dim=1).values, neighbours_BTM.flatten(1).to(items_BK.dtype)
        rows_BR = torch.searchsorted(sorted_BK, neighbours_BR).clamp_(max=n_items - 1)
        scores_BR = scores_BTM.flatten(1).where(sorted_BK.gather(1, rows_BR) == neighbours_BR, 0.0)
        recent_R = torch.arange(n_recent, device=rows_BR.device).repeat_interleave(n_neighbours)
        parts_BR.scatter_add_(1, rows_BR * n_recent + recent_R, scores_BR)
        rows_BK1 = torch.searchsorted(sorted_BK, items_BK)[:, :, None]
        return parts_BR.view(n_batch, n_items, n_recent).gather(1, rows_BK1.expand(-1, -1, n_recent))

    def _weighted(self, histories: Histories) -> tuple[Tensor, Tensor]:
        """The last `max_items` items of each history [B, T], padded with PADDING, and their weights [B, T]."""
        items_BT = torch.from_numpy(histories.last(self.settings.max_items).items_BT)
        items_BT = items_BT.to(self.neighbours_NM.device)
        real_BT = items_BT != PADDING
        ages_BT = real_BT.sum(1, keepdim=True) - 1 - torch.arange(items_BT.shape[1], device=items_BT.device)
        return items_BT, torch.where(real_BT, self.settings.decay ** ages_BT.clamp(min=0).float(), 0.0)

    def retrieve(
        self,
        histories: Histories,
        count: int | None = None,
        *,
        exclude_seen: bool = True,
        allowed_N: Tensor | None = None,
    ) -> Neighbours:
        """The `count` distinct neighbours of each history's items with the highest summed scores (None: all).

        `exclude_seen` leaves out the items of the whole history; `allowed_N` (bool, by item index) restricts the
        candidates.
        """
        seen_BT = torch.from_numpy(histories.items_BT).to(self.neighbours_NM.device)
        items_BT, weights_BT = self._weighted(histories)
        rows_BT = items_BT.clamp(min=0)
        neighbours_BR = self.neighbours_NM[rows_BT].flatten(1).long()
        scores_BR = (self.similarity_NM[rows_BT] * weights_BT[:, :, None]).flatten(1)
        # Sorting makes equal neighbours of several items adjacent, so that their scores can be summed.
        neighbours_BR, order_BR = neighbours_BR.sort(dim=1)
        scores_BR = scores_BR.gather(1, order_BR)
        is_first_BR = torch.ones_like(neighbours_BR, dtype=torch.bool)
        is_first_BR[:, 1:] = neighbours_BR[:, 1:] != neighbours_BR[:, :-1]
        column_BR = is_first_BR.cumsum(1) - 1
        width = int(column_BR.max()) + 1 if column_BR.numel() else 0
        summed_BR = torch.zeros_like(scores_BR[:, :width]).scatter_add_(1, column_BR, scores_BR)
        unique_BR = torch.full_like(neighbours_BR[:, :width], PADDING)
        unique_BR.scatter_(1, column_BR, neighbours_BR)
        left_out_BR = unique_BR == PADDING
        if exclude_seen:
            left_out_BR |= is_in(unique_BR, seen_BT)
        if allowed_N is not None:
            left_out_BR |= ~allowed_N[unique_BR.clamp(min=0)]
        # Items are in ascending order here, so that a stable sort orders ties by item index.
        scores_BM, best_BM = summed_BR.masked_fill_(left_out_BR, 0.0).sort(
            dim=1, descending=True, stable=True
        )
        scores_BM, best_BM = scores_BM[:, :count], best_BM[:, :count]
        return Neighbours(unique_BR.gather(1, best_BM).masked_fill_(scores_BM <= 0, PADDING), scores_BM)

    def write(self, folder: Path) -> None:
        """Write the index into `folder`: its settings as JSON, its tensors as safetensors."""
        write_json(folder / SETTINGS_FILE, asdict(self.settings))
        tensors = {"neighbours": self.neighbours_NM.int(), "similarity": self.similarity_NM}
        if self.counts_N is not None:
            tensors[COUNTS] = self.counts_N
        with atomic_write(folder / NEIGHBOURS_FILE) as file:
            file.write(safetensors.torch.save(tensors))

    @classmethod
    def read(cls, folder: Path, n_items: int) -> "KnnIndex":
        """The index in `folder`; `n_items` is the size of its catalogue.

        Raises ValueError if its files are damaged or do not fit the catalogue.
        """
        path = folder / NEIGHBOURS_FILE
        tensors = read_tensors(path)
        try:
            settings = KnnSettings(**read_json(folder / SETTINGS_FILE))
            neighbours_NM, similarity_NM = tensors["neighbours"], tensors["similarity"]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{folder}: {SETTINGS_FILE} and {NEIGHBOURS_FILE} are not a kNN index of this version of rqrec: "
                f"{error}. Join the experts again."
            ) from error
        if (
            neighbours_NM.shape != similarity_NM.shape
            or neighbours_NM.dim() != 2
            or len(neighbours_NM) != n_items
        ):
            raise ValueError(
                f"{path} has tensors of shapes {tuple(neighbours_NM.shape)} and {tuple(similarity_NM.shape)}, but "
                f"needs two of the same shape with {n_items} rows, one for each item."
            )
        if not similarity_NM.is_floating_point() or neighbours_NM.is_floating_point():
            raise ValueError(
                f"{path} has neighbours of {neighbours_NM.dtype} and similarity of {similarity_NM.dtype}, but must "
                f"have int32 and float32. Join the experts again with `rqrec join`."
            )
        if (similarity_NM < 0).any():
            raise ValueError(f"{path} has negative similarities. Join the experts again with `rqrec join`.")
        if neighbours_NM.numel() and not -1 <= int(neighbours_NM.min()) <= int(neighbours_NM.max()) < n_items:
            raise ValueError(f"{path} has item indices outside of the catalogue of {n_items} items.")
        counts_N = tensors.get(COUNTS)
        if counts_N is not None and (counts_N.shape != (n_items,) or counts_N.dtype != torch.int64):
            raise ValueError(
                f"{path} has counts of shape {tuple(counts_N.shape)} and type {counts_N.dtype}, but needs int64 of "
                f"shape ({n_items},). Join the experts again with `rqrec join`."
            )
        return cls(neighbours_NM.int(), similarity_NM.float(), settings, counts_N)


def is_in(items_BR: Tensor, histories_BT: Tensor) -> Tensor:
    """Whether each item is in its row's history, bool [B, R]."""
    if not histories_BT.shape[1]:
        return torch.zeros_like(items_BR, dtype=torch.bool)
    sorted_BT = histories_BT.sort(dim=1).values
    index_BR = torch.searchsorted(sorted_BT, items_BR).clamp_(max=sorted_BT.shape[1] - 1)
    return sorted_BT.gather(1, index_BR) == items_BR
