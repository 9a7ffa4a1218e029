"""An index of each item's nearest neighbours, which retrieves candidates for a history.

Shapes: B batch, T items of a history, N items, M neighbours of an item, R = T x M candidates.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from scipy.sparse import csr_array
from torch import Tensor

from rqrec.core.artifact import atomic_write, read_json, write_json
from rqrec.data.ids import PADDING
from rqrec.data.sequences import gather_right_padded

SETTINGS_FILE = "knn.json"
NEIGHBOURS_FILE = "knn.safetensors"


@dataclass(frozen=True)
class KnnSettings:
    """How candidates are scored, and how much they count in a mixture with a model.

    Raises ValueError on values out of range.
    """

    mixture_weight: float = 0.3
    """Weight of p_knn in the mixture with a model, between 0 and 1 (lambda of kNN-LM). For a history whose items have
    no neighbours, only the model is used."""
    power: float = 3.0
    """p_knn of a candidate is proportional to its score to this power, above 0 (an inverse temperature)."""
    decay: float = 0.6
    """Weight of an item of the history relative to the item after it, above 0 and at most 1."""
    content_weight: float = 0.0
    """Weight of content cosines relative to co-occurrence similarities, at least 0. The stored similarities
    already include it."""

    def __post_init__(self) -> None:
        if not 0 < self.mixture_weight < 1:
            raise ValueError(f"mixture_weight is {self.mixture_weight}, but must be above 0 and below 1.")
        if not self.power > 0:
            raise ValueError(f"power is {self.power}, but must be above 0.")
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay is {self.decay}, but must be above 0 and at most 1.")
        if self.content_weight < 0:
            raise ValueError(f"content_weight is {self.content_weight}, but must be at least 0.")


class Candidates(NamedTuple):
    """Candidates for each history: item indices [B, R] and scores float32 [B, R].

    The score is 0 at padding and at items of the history.
    """

    items_BR: Tensor
    scores_BR: Tensor


@dataclass(frozen=True)
class KnnIndex:
    """The nearest neighbours of each item (see `rqrec.knn.graph`)."""

    neighbours_NM: Tensor
    """int32, padded with PADDING."""
    similarity_NM: Tensor
    """float32, 0 at padding."""
    settings: KnnSettings = KnnSettings()

    @classmethod
    def from_similarity(cls, similarity_NN: csr_array) -> "KnnIndex":
        """Build from the sparse similarity of each item (row) to its neighbours (see `rqrec.knn.graph`)."""
        starts_N, counts_N = similarity_NN.indptr[:-1], np.diff(similarity_NN.indptr)
        cells_NM = gather_right_padded(np.arange(similarity_NN.nnz), starts_N, counts_N)
        inside_NM = cells_NM != PADDING
        neighbours_NM = np.full(cells_NM.shape, PADDING, dtype=np.int32)
        neighbours_NM[inside_NM] = similarity_NN.indices[cells_NM[inside_NM]]
        similarity_NM = np.zeros(cells_NM.shape, dtype=np.float32)
        similarity_NM[inside_NM] = similarity_NN.data[cells_NM[inside_NM]]
        return cls(torch.from_numpy(neighbours_NM), torch.from_numpy(similarity_NM))

    def __len__(self) -> int:
        return len(self.neighbours_NM)

    def with_settings(self, **changes: float) -> "KnnIndex":
        """The same neighbours with some settings changed."""
        return replace(self, settings=replace(self.settings, **changes))

    def to(self, device: torch.device | str) -> "KnnIndex":
        """The index on another device."""
        return replace(
            self, neighbours_NM=self.neighbours_NM.to(device), similarity_NM=self.similarity_NM.to(device)
        )

    def retrieve(self, items_BT: Tensor) -> Candidates:
        """The distinct neighbours of each history's items with their summed scores; items of the history score 0.

        `items_BT` are item indices, oldest first, padded with PADDING on the right.
        """
        real_BT = items_BT != PADDING
        ages_BT = real_BT.sum(1, keepdim=True) - 1 - torch.arange(items_BT.shape[1], device=items_BT.device)
        weights_BT = torch.where(real_BT, self.settings.decay ** ages_BT.clamp(min=0).float(), 0.0)
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
        seen_BR = _is_in(unique_BR, items_BT)
        return Candidates(unique_BR, summed_BR.masked_fill_(seen_BR | (unique_BR == PADDING), 0.0))

    def probabilities(self, candidates: Candidates) -> Tensor:
        """p_knn float32 [B, R] of the candidates; all 0 for a history without any."""
        if not candidates.scores_BR.shape[1]:  # every history is empty
            return candidates.scores_BR
        # Divided by the highest score first, so that a power of small scores does not underflow.
        highest_B1 = candidates.scores_BR.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        powers_BR = (candidates.scores_BR / highest_B1) ** self.settings.power
        return powers_BR / powers_BR.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)

    def write(self, folder: Path) -> None:
        """Write the index into `folder`: its settings as JSON, its tensors as safetensors."""
        write_json(folder / SETTINGS_FILE, asdict(self.settings))
        tensors = {"neighbours": self.neighbours_NM.int(), "similarity": self.similarity_NM}
        with atomic_write(folder / NEIGHBOURS_FILE) as file:
            file.write(safetensors.torch.save(tensors))

    @classmethod
    def read(cls, folder: Path, n_items: int) -> "KnnIndex | None":
        """The index in `folder`, or None if it has none; `n_items` is the size of its catalogue.

        Raises ValueError if its files are damaged or do not fit the catalogue.
        """
        if not (folder / SETTINGS_FILE).is_file():
            return None
        path = folder / NEIGHBOURS_FILE
        try:
            settings = KnnSettings(**read_json(folder / SETTINGS_FILE))
            tensors = safetensors.torch.load_file(path)
            neighbours_NM, similarity_NM = tensors["neighbours"].int(), tensors["similarity"].float()
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise ValueError(
                f"{folder}: {SETTINGS_FILE} and {NEIGHBOURS_FILE} are not a kNN index of this version of rqrec: "
                f"{error}. Train the model again."
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
        if neighbours_NM.numel() and not -1 <= int(neighbours_NM.min()) <= int(neighbours_NM.max()) < n_items:
            raise ValueError(f"{path} has item indices outside of the catalogue of {n_items} items.")
        return cls(neighbours_NM, similarity_NM, settings)


def _is_in(items_BR: Tensor, histories_BT: Tensor) -> Tensor:
    """Whether each item is in its row's history, bool [B, R]."""
    if not histories_BT.shape[1]:
        return torch.zeros_like(items_BR, dtype=torch.bool)
    sorted_BT = histories_BT.sort(dim=1).values
    index_BR = torch.searchsorted(sorted_BT, items_BR).clamp_(max=sorted_BT.shape[1] - 1)
    return sorted_BT.gather(1, index_BR) == items_BR
