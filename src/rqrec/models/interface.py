"""What every retrieval model offers: one batch in, log-probabilities of the next level out.

Beam search, exhaustive scoring and evaluation stand on this interface alone.

Shapes: B batch, T items in a history, L levels, K beams, l codes of a prefix, V codes of the next level,
M items that are targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
from rqrec.models.side_information import user_number


class Batch(NamedTuple):
    """Histories as semantic IDs, oldest item first, padded on the right.

    `codes_BTL` int64; the codes of padded items are 0 and must never be looked at: `lengths_B` int64 says
    how many items of each row are real. `times_BT` int64 (unix seconds) says when each was taken, `users_B`
    int64 whose the histories are (see `user_number`), `items_BT` int64 which items they have (indices, padded
    with PADDING); None where that is not known.
    """

    codes_BTL: Tensor
    lengths_B: Tensor
    times_BT: Tensor | None = None
    users_B: Tensor | None = None
    items_BT: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        return Batch(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class ModelConfig:
    """Sizes that every architecture has; each gives them defaults of its own.

    level_sizes: codes at each level, the deduplication level included (codes)
    max_items: items of history that are read, the most recent (items)
    decoder_embed_dim: width of a code's embedding
    attn_embed_dim, attn_heads, attn_layers: width, heads and depth of the transformer
    attn_dropout: dropout on the embedding and on what each attention and feed-forward adds (probability)
    label_smoothing: share of each target that training spreads evenly over all codes of its level
    user_buckets, time_gaps: tokens for users, buckets for the time between items, 0: none (SideInformation)
    tie_codes: a code has one embedding, for input and output (CodeOutput)

    Raises ValueError on sizes that no model can have.
    """

    level_sizes: tuple[int, ...]
    max_items: int = 20
    decoder_embed_dim: int = 128
    attn_embed_dim: int = 128
    attn_heads: int = 4
    attn_layers: int = 2
    attn_dropout: float = 0.1
    label_smoothing: float = 0.0
    user_buckets: int = 0
    time_gaps: int = 0
    tie_codes: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "level_sizes", tuple(self.level_sizes))
        for name in ("max_items", "decoder_embed_dim", "attn_embed_dim", "attn_heads", "attn_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1.")
        for name in ("user_buckets", "time_gaps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 0 (0: none).")
        if self.attn_embed_dim % self.attn_heads:
            raise ValueError(
                f"attn_embed_dim {self.attn_embed_dim} is not a multiple of attn_heads {self.attn_heads}."
            )
        for name in ("attn_dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be in [0, 1).")
        if not self.level_sizes or min(self.level_sizes) < 1:
            raise ValueError(f"level_sizes is {self.level_sizes}, but every level needs at least 1 code.")


class TrainingLoss(NamedTuple):
    """`total` is minimised; `by_level_L` is each level's mean cross-entropy in nats, detached."""

    total: Tensor
    by_level_L: Tensor

    @classmethod
    def of(cls, logits_LMV: Sequence[Tensor], targets_ML: Tensor, smoothing: float = 0.0) -> "TrainingLoss":
        """Cross-entropy of M items' codes from each level's logits [M, V]; mean over codes.

        With label smoothing (arXiv 1512.00567, section 7) the total is (1 - smoothing) x the cross-entropy +
        smoothing x that against all codes evenly; `by_level_L` has none of it.
        """
        totals, losses = [], []
        for logits_MV, targets_M in zip(logits_LMV, targets_ML.unbind(1), strict=True):
            log_probs_MV = logits_MV.float().log_softmax(-1)
            losses.append(functional.nll_loss(log_probs_MV, targets_M))
            totals.append(losses[-1] * (1 - smoothing))
            if smoothing:
                totals[-1] = totals[-1] - smoothing * log_probs_MV.mean()
        return cls(torch.stack(totals).mean(), torch.stack(losses).detach())


ContextT = TypeVar("ContextT")


class RetrievalModel(Protocol[ContextT]):
    """A model of p(semantic ID of the next item | history).

    `encode` reads the histories once; what it returns is the model's own business. `next_level` gives
    log p(code at level l | history, prefix of l codes) for K prefixes of each history.
    """

    level_sizes: tuple[int, ...]
    max_items: int

    def encode(self, batch: Batch) -> ContextT:
        """Read the histories."""

    def next_level(self, context: ContextT, prefix_BKl: Tensor) -> Tensor:
        """Normalised log-probabilities float32 [B, K, V] of level l, the length of the prefix."""

    def __call__(self, batch: Batch) -> TrainingLoss:
        """Mean cross-entropy over every code of every item, each given all that came before."""


@dataclass(frozen=True)
class CodeLookup:
    """From item indices to model input, with the one padding convention: index PADDING, on the right.

    `codes_NL` int64 [N, L] on the model's device.
    """

    codes_NL: Tensor

    @classmethod
    def of(cls, codes_NL: NDArray[np.integer], device: torch.device | str = "cpu") -> "CodeLookup":
        """From the codes of a semantic-ID table."""
        return cls(torch.from_numpy(np.asarray(codes_NL, dtype=np.int64)).to(device))

    def batch(self, histories: Histories, max_items: int) -> Batch:
        """The most recent `max_items` items of each history, as codes, with what else is known."""
        recent, device = histories.last(max_items), self.codes_NL.device
        inside_BT = torch.from_numpy(recent.items_BT != PADDING).to(device)

        def filled(known_BT: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(known_BT).to(device) * inside_BT

        times_BT, users = recent.times_BT, recent.user_ids
        return Batch(
            self.codes_NL[filled(recent.items_BT)] * inside_BT[:, :, None],
            inside_BT.sum(1),
            None if times_BT is None else filled(times_BT),
            None if users is None else torch.tensor([*map(user_number, users)], device=device),
            torch.from_numpy(recent.items_BT).to(device),
        )


def parameter_count(model: Any) -> int:
    """Number of trained parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
