"""A memory of which items go together, mixed with a model's probabilities while codes are generated.

A transformer forgets pairs of items that it saw a few times, which is all that most items of a catalogue have.
So it is joined by what remembers them, as a language model is by the contexts that were like the present one
(kNN-LM, U. Khandelwal et al., arXiv 1911.00172, equation 3):

    p(item | history) = (1 - share) x p_model(item | history) + share x p_memory(item | history)

Both parts are distributions over the same semantic IDs, the memory's probability of a prefix being the sum of those
of the items below it. So the mixture is a model like any other, which beam search asks level by level.

Shapes: B batch, T items of a history, N items, M neighbours of an item, R = T x M remembered items, K beams,
l codes of a prefix, V codes of the next level, L levels.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from scipy.sparse import csr_array
from torch import Tensor

from rqrec.artifact import atomic_write, read_json, write_json
from rqrec.data.ids import PADDING
from rqrec.data.sequences import gather_right_padded
from rqrec.retrieval.model import Batch, RetrievalModel, TrainingLoss
from rqrec.retrieval.prefixes import Prefixes

SETTINGS_FILE = "memory.json"
NEIGHBOURS_FILE = "memory.safetensors"


@dataclass(frozen=True)
class MemorySettings:
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


class Remembered(NamedTuple):
    """What a memory proposes for each history: item indices [B, R], and scores float32 [B, R], 0 at padding."""

    items_BR: Tensor
    scores_BR: Tensor


@dataclass(frozen=True)
class NeighbourMemory:
    """The items that go with each item (see `rqrec.data.neighbours`).

    `neighbours_NM` int32, padded with PADDING; `likeness_NM` float32, 0 there.
    """

    neighbours_NM: Tensor
    likeness_NM: Tensor
    settings: MemorySettings = MemorySettings()

    @classmethod
    def of(cls, likeness_NN: csr_array) -> "NeighbourMemory":
        """From the likeness of each item (row) to its neighbours, sparse (see `rqrec.data.neighbours`)."""
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

    def using(self, **changes: float) -> "NeighbourMemory":
        """The same neighbours with other settings."""
        return replace(self, settings=replace(self.settings, **changes))

    def to(self, device: torch.device | str) -> "NeighbourMemory":
        """The memory on another device."""
        return replace(
            self, neighbours_NM=self.neighbours_NM.to(device), likeness_NM=self.likeness_NM.to(device)
        )

    def recall(self, items_BT: Tensor) -> Remembered:
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
        return Remembered(once_BR, summed_BR.masked_fill_(seen_BR | (once_BR == PADDING), 0.0))

    def probabilities(self, remembered: Remembered) -> Tensor:
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
    def read(cls, folder: Path, n_items: int) -> "NeighbourMemory | None":
        """The memory in `folder` of a catalogue of `n_items`, or None where there is none.

        Raises ValueError where its files are not those of such a memory.
        """
        if not (folder / SETTINGS_FILE).is_file():
            return None
        path = folder / NEIGHBOURS_FILE
        try:
            settings = MemorySettings(**read_json(folder / SETTINGS_FILE))
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


class _Asked(NamedTuple):
    """The model's answer of the level before: prefixes, their log-probabilities, and those of the next codes."""

    prefix_BKl: Tensor
    reached_BK: Tensor
    next_BKV: Tensor


@dataclass
class Recollection:
    """What is kept of a batch of histories: the model's own context, and what the memory proposes for each.

    `asked` is what the model said last, so that the levels of a search build on each other.
    """

    own: Any
    items_BR: Tensor
    probabilities_BR: Tensor
    asked: _Asked | None = None


class Remembering:
    """A model and a memory as one model of the next item's semantic ID.

    `codes_NL` int64 [N, L] are those of the catalogue that both are of. Batches must say which items their
    histories have (`Batch.items_BT`).
    """

    def __init__(self, model: RetrievalModel[Any], memory: NeighbourMemory, codes_NL: Tensor) -> None:
        self.model, self.memory = model, memory.to(codes_NL.device)
        self.level_sizes, self.max_items = model.level_sizes, model.max_items
        self._codes_NL, self._prefixes = codes_NL, Prefixes(codes_NL, tuple(model.level_sizes))

    def __call__(self, batch: Batch) -> TrainingLoss:
        """The model's own: a memory is not trained."""
        return self.model(batch)

    def encode(self, batch: Batch) -> Recollection:
        """Read the histories once, and recall what goes with them."""
        if batch.items_BT is None:
            raise ValueError(
                "A memory needs to know the items of a history; this batch has their codes alone."
            )
        remembered = self.memory.recall(batch.items_BT)
        probabilities_BR = self.memory.probabilities(remembered)
        return Recollection(self.model.encode(batch), remembered.items_BR, probabilities_BR)

    def next_level(self, context: Recollection, prefix_BKl: Tensor) -> Tensor:
        """Log-probabilities float32 [B, K, V] of the mixture (see RetrievalModel)."""
        reached_BK, next_BKV = self._ask(context, prefix_BKl)
        some_B = context.probabilities_BR.any(1)
        share_B11 = (self.memory.settings.share * some_B)[:, None, None]
        generated_BKV = next_BKV + (reached_BK[:, :, None] + torch.log1p(-share_B11))
        recalled_BKV = torch.log(share_B11 * self._below(context, prefix_BKl))
        return torch.logaddexp(generated_BKV, recalled_BKV).log_softmax(-1)

    def _ask(self, context: Recollection, prefix_BKl: Tensor) -> tuple[Tensor, Tensor]:
        """The model's log-probabilities of the prefixes [B, K] and of the codes after them [B, K, V]."""
        reached_BK = self._reached(context, prefix_BKl)
        next_BKV = self.model.next_level(context.own, prefix_BKl)
        context.asked = _Asked(prefix_BKl, reached_BK, next_BKV)
        return reached_BK, next_BKV

    def _reached(self, context: Recollection, prefix_BKl: Tensor) -> Tensor:
        level = prefix_BKl.shape[2]
        if level == 0:
            return torch.zeros(prefix_BKl.shape[:2], device=prefix_BKl.device)
        parents_BKl, last = prefix_BKl[:, :, :-1], context.asked
        if last is None or (place_BK := _places(parents_BKl, last.prefix_BKl)) is None:
            reached_BK, next_BKV = self._ask(context, parents_BKl)
        else:
            reached_BK = last.reached_BK.gather(1, place_BK)
            rows_BKV = place_BK[:, :, None].expand(-1, -1, last.next_BKV.shape[2])
            next_BKV = last.next_BKV.gather(1, rows_BKV)
        return reached_BK + next_BKV.gather(2, prefix_BKl[:, :, -1:])[:, :, 0]

    def _below(self, context: Recollection, prefix_BKl: Tensor) -> Tensor:
        """The memory's probability float32 [B, K, V] of each prefix with each next code."""
        n_batch, n_beams, level = prefix_BKl.shape
        size, items_BR = self.level_sizes[level], context.items_BR.clamp(min=0)
        nodes_BK, order_BK = self._prefixes.of_prefix(prefix_BKl).sort(dim=1)
        of_items_BR = self._prefixes.of_item[level][items_BR]
        place_BR = torch.searchsorted(nodes_BK, of_items_BR).clamp_(max=n_beams - 1)
        found_BR = nodes_BK.gather(1, place_BR) == of_items_BR
        cells_BR = place_BR * size + self._codes_NL[:, level][items_BR]
        sums = torch.zeros(n_batch, n_beams * size, device=prefix_BKl.device)
        sums.scatter_add_(1, cells_BR, context.probabilities_BR * found_BR)
        # Of equal prefixes the first of the sorted ones has the sums.
        first_BK = torch.empty_like(order_BK).scatter_(1, order_BK, torch.searchsorted(nodes_BK, nodes_BK))
        return sums.view(n_batch, n_beams, size).gather(1, first_BK[:, :, None].expand(-1, -1, size))


def _places(prefix_BKl: Tensor, among_BJl: Tensor) -> Tensor | None:
    """Where each prefix stands among others, int64 [B, K]; None where one is not there."""
    if prefix_BKl.shape[2] != among_BJl.shape[2]:
        return None
    if prefix_BKl.shape == among_BJl.shape and torch.equal(prefix_BKl, among_BJl):
        return torch.arange(prefix_BKl.shape[1], device=prefix_BKl.device).expand(prefix_BKl.shape[:2])
    equal_BKJ = (prefix_BKl[:, :, None] == among_BJl[:, None]).all(-1)
    found_BK, place_BK = equal_BKJ.max(dim=2)
    return place_BK if bool(found_BK.all()) else None
