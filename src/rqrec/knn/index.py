"""An index of each item's nearest neighbours, which proposes candidates for a history.

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

SETTINGS_FILE = "memory.json"
NEIGHBOURS_FILE = "memory.safetensors"


@dataclass(frozen=True)
class KnnSettings:
    """How the memory proposes items, and how much it says.

    share: of the mixture, 0 to 1; a history whose items have no neighbours gets the model alone
    sharpness: a proposed item's score counts to this power
    decay: an item of the history weighs this much times what the one after it does
    content: what a cosine of contents counts, beside a likeness by who took what; already in the likeness
    """

    share: float = 0.3
    sharpness: float = 3.0
    decay: float = 0.6
    content: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"The memory's share is {self.share}, but must be above 0 and below 1.")
        if not self.sharpness > 0:
            raise ValueError(f"The memory's sharpness is {self.sharpness}, but must be above 0.")
        if not 0 < self.decay <= 1:
            raise ValueError(f"The memory's decay is {self.decay}, but must be above 0 and at most 1.")
        if self.content < 0:
            raise ValueError(f"The memory's content is {self.content}, but must be at least 0.")


class Candidates(NamedTuple):
    """What a memory proposes for each history: item indices [B, R], and scores float32 [B, R], 0 at padding."""

    items_BR: Tensor
    scores_BR: Tensor


@dataclass(frozen=True)
class KnnIndex:
    """The items that go with each item (see `rqrec.knn.graph`).

    `neighbours_NM` int32, padded with PADDING; `likeness_NM` float32, 0 there.
    """

    neighbours_NM: Tensor
    likeness_NM: Tensor
    settings: KnnSettings = KnnSettings()

    @classmethod
    def of(cls, likeness_NN: csr_array) -> "KnnIndex":
        """From the likeness of each item (row) to its neighbours, sparse (see `rqrec.knn.graph`)."""
        starts_N, counts_N = likeness_NN.indptr[:-1], np.diff(likeness_NN.indptr)
        places_NM = gather_right_padded(np.arange(likeness_NN.nnz), starts_N, counts_N)
        inside_NM = places_NM != PADDING
        neighbours_NM = np.full(places_NM.shape, PADDING, dtype=np.int32)
        neighbours_NM[inside_NM] = likeness_NN.indices[places_NM[inside_NM]]
        likeness_NM = np.zeros(places_NM.shape, dtype=np.float32)
        likeness_NM[inside_NM] = likeness_NN.data[places_NM[inside_NM]]
        return cls(torch.from_numpy(neighbours_NM), torch.from_numpy(likeness_NM))

    def __len__(self) -> int:
        return len(self.neighbours_NM)

    def using(self, **changes: float) -> "KnnIndex":
        """The same neighbours with other settings."""
        return replace(self, settings=replace(self.settings, **changes))

    def to(self, device: torch.device | str) -> "KnnIndex":
        """The memory on another device."""
        return replace(
            self, neighbours_NM=self.neighbours_NM.to(device), likeness_NM=self.likeness_NM.to(device)
        )

    def recall(self, items_BT: Tensor) -> Candidates:
        """The neighbours of each history's items, none of which is in it: each once, with its summed score.

        `items_BT` are item indices, oldest first, padded with PADDING on the right.
        """
        real_BT = items_BT != PADDING
        ages_BT = real_BT.sum(1, keepdim=True) - 1 - torch.arange(items_BT.shape[1], device=items_BT.device)
        weights_BT = torch.where(real_BT, self.settings.decay ** ages_BT.clamp(min=0).float(), 0.0)
        known_BT = items_BT.clamp(min=0)
        found_BR = self.neighbours_NM[known_BT].flatten(1).long()
        scores_BR = (self.likeness_NM[known_BT] * weights_BT[:, :, None]).flatten(1)
        # A neighbour of several items of the history is put together, by sorting.
        found_BR, order_BR = found_BR.sort(dim=1)
        scores_BR = scores_BR.gather(1, order_BR)
        begins_BR = torch.ones_like(found_BR, dtype=torch.bool)
        begins_BR[:, 1:] = found_BR[:, 1:] != found_BR[:, :-1]
        place_BR = begins_BR.cumsum(1) - 1
        most = int(place_BR.max()) + 1 if place_BR.numel() else 0
        summed_BR = torch.zeros_like(scores_BR[:, :most]).scatter_add_(1, place_BR, scores_BR)
        once_BR = torch.full_like(found_BR[:, :most], PADDING).scatter_(1, place_BR, found_BR)
        seen_BR = _are_in(once_BR, items_BT)
        return Candidates(once_BR, summed_BR.masked_fill_(seen_BR | (once_BR == PADDING), 0.0))

    def probabilities(self, remembered: Candidates) -> Tensor:
        """p_memory float32 [B, R] of what was recalled; all 0 where nothing was."""
        if not remembered.scores_BR.shape[1]:  # empty histories alone
            return remembered.scores_BR
        # By the highest, so that a power of small scores does not vanish.
        highest_B1 = remembered.scores_BR.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        powers_BR = (remembered.scores_BR / highest_B1) ** self.settings.sharpness
        return powers_BR / powers_BR.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)

    def write(self, folder: Path) -> None:
        """Write the memory's two files into `folder`."""
        write_json(folder / SETTINGS_FILE, asdict(self.settings))
        tensors = {"neighbours": self.neighbours_NM.int(), "likeness": self.likeness_NM}
        with atomic_write(folder / NEIGHBOURS_FILE) as file:
            file.write(safetensors.torch.save(tensors))

    @classmethod
    def read(cls, folder: Path, n_items: int) -> "KnnIndex | None":
        """The memory in `folder` of a catalogue of `n_items`, or None where there is none.

        Raises ValueError where its files are not those of such a memory.
        """
        if not (folder / SETTINGS_FILE).is_file():
            return None
        path = folder / NEIGHBOURS_FILE
        try:
            settings = KnnSettings(**read_json(folder / SETTINGS_FILE))
            tensors = safetensors.torch.load_file(path)
            neighbours_NM, likeness_NM = tensors["neighbours"].int(), tensors["likeness"].float()
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise ValueError(
                f"{folder}: {SETTINGS_FILE} and {NEIGHBOURS_FILE} are no memory: {error}"
            ) from error
        if (
            neighbours_NM.shape != likeness_NM.shape
            or neighbours_NM.dim() != 2
            or len(neighbours_NM) != n_items
        ):
            raise ValueError(
                f"{path} has shapes {tuple(neighbours_NM.shape)} and {tuple(likeness_NM.shape)}; two equal ones "
                f"with {n_items} rows, one an item, are needed."
            )
        if neighbours_NM.numel() and not -1 <= int(neighbours_NM.min()) <= int(neighbours_NM.max()) < n_items:
            raise ValueError(f"{path} names items that are not among the {n_items} of the catalogue.")
        return cls(neighbours_NM, likeness_NM, settings)


def _are_in(items_BR: Tensor, histories_BT: Tensor) -> Tensor:
    """Whether each of some items stands in its history, bool [B, R]."""
    if not histories_BT.shape[1]:
        return torch.zeros_like(items_BR, dtype=torch.bool)
    sorted_BT = histories_BT.sort(dim=1).values
    place_BR = torch.searchsorted(sorted_BT, items_BR).clamp_(max=sorted_BT.shape[1] - 1)
    return sorted_BT.gather(1, place_BR) == items_BR
