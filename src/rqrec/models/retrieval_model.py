"""The interface of every retrieval model: a batch of histories in, logits of the next level's codes out.

Beam search, exhaustive scoring and evaluation use nothing else. `rqrec.models.trie_softmax` turns the logits into
probabilities.

Shapes: B batch, T items in a history, L levels, M targets, K beams, l codes of a prefix, V codes of the next level, N
items of the catalogue.
"""

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rqrec.core.values import (
    Config,
    Depth,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Range,
    Width,
)
from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
from rqrec.models.side_information import user_number
from rqrec.models.trie_softmax import TrainingLoss
from rqrec.tokenizer.trie import Trie


class Batch(NamedTuple):
    """Histories as semantic IDs, oldest item first, padded on the right.

    Optional fields are None if unknown.
    """

    codes_BTL: Tensor
    """int64; 0 at padding, which a model must never use."""
    lengths_B: Tensor
    """int64: the number of items of each history."""
    times_BT: Tensor | None = None
    """int64: the time of each interaction, in seconds since 1970; 0 at padding."""
    users_B: Tensor | None = None
    """int64: the hashed id of each history's user (see `user_number`), PADDING if unknown."""
    items_BT: Tensor | None = None
    """int64: item indices, padded with PADDING; needed for training."""

    def targets(self, *, last_only: bool) -> Tensor:
        """The items of all histories in order, or only the last one of each: int64 [M].

        Raises ValueError if the items are unknown.
        """
        if self.items_BT is None:
            raise ValueError("The batch has no items_BT, but training needs the item indices of its targets.")
        if last_only:
            return self.items_BT.gather(1, self.lengths_B[:, None] - 1)[:, 0]
        positions_T = torch.arange(self.items_BT.shape[1], device=self.lengths_B.device)
        return self.items_BT[positions_T < self.lengths_B[:, None]]

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        return Batch(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class ModelConfig(Config):
    """Settings common to all architectures, each with its own defaults.

    Raises ValueError on values out of range.
    """

    level_sizes: tuple[PositiveInt, ...]
    """Number of codes at each level, including the deduplication level."""
    max_items: Width = 20
    """Number of most recent items of a history that the model reads."""
    decoder_embed_dim: Width = 128
    """Width of a code's embedding."""
    attn_embed_dim: Width = 128
    """Width of the transformer; a multiple of attn_heads."""
    attn_heads: Width = 4
    """Number of attention heads."""
    attn_layers: Depth = 2
    """Number of transformer blocks."""
    attn_dropout: Probability = 0.1
    """Dropout probability on the input embeddings and on the output of each attention and feed-forward layer."""
    label_smoothing: Probability = 0.0
    """Probability mass of each target that training spreads evenly over the codes that continue its prefix."""
    user_buckets: NonNegativeInt = 0
    """Number of user tokens that user ids are hashed into (0: none)."""
    time_gaps: Annotated[int, Range(0, 2**16)] = 0
    """Number of log-spaced buckets for the time since the previous item (0: none)."""
    tie_codes: bool = False
    """Whether codes share one embedding between input and output."""
    input_scale: PositiveFloat = 1.0
    """Factor on the codes of an item at the input, before positions are added: the larger it is, the more each single
    item counts, and the less its place."""
    item_embed_dim: Annotated[int, Range(0, 2**20)] = 0
    """Width of a learned vector of each item at the input, beside its codes (0: none)."""
    content_dim: Annotated[int, Range(0, 2**20)] = 0
    """Width of an item's content vector, which is read beside its codes (0: none)."""
    n_items: NonNegativeInt = 0
    """Number of items that have such vectors."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attn_embed_dim % self.attn_heads:
            raise ValueError(
                f"attn_embed_dim {self.attn_embed_dim} is not a multiple of attn_heads {self.attn_heads}."
            )
        if not self.level_sizes:
            raise ValueError("level_sizes is empty, but a semantic ID needs at least one level.")
        if (self.item_embed_dim or self.content_dim) and not self.n_items:
            raise ValueError(
                f"item_embed_dim is {self.item_embed_dim} and content_dim is {self.content_dim}, but n_items is 0."
            )


ContextT = TypeVar("ContextT")


class RetrievalModel(Protocol[ContextT]):
    """A model of p(semantic ID of the next item | history).

    `encode` reads the histories once, and returns a context that only the model itself interprets. `next_logits`
    gives the logits of the codes of level l after K prefixes of l codes of each history. Their softmax over the
    children of the prefix's node is p(code | history, prefix) (see `log_probs_of_children`).
    """

    level_sizes: tuple[int, ...]
    max_items: int

    def encode(self, batch: Batch) -> ContextT:
        """Read the histories."""

    def next_logits(self, context: ContextT, prefix_BKl: Tensor) -> Tensor:
        """Logits [B, K, V] of the codes of level l, for int64 prefixes of l codes."""

    def __call__(self, batch: Batch, trie: Trie) -> TrainingLoss:
        """The training loss: mean cross-entropy of target codes, each given everything before it.

        `trie` has all items of the catalogue; `batch.items_BT` says which of them are the targets.
        """


@dataclass(frozen=True)
class CodeLookup:
    """Turns histories of item indices (padded with PADDING on the right) into model input."""

    codes_NL: Tensor
    """int64, on the model's device: the codes of each item."""

    @classmethod
    def from_codes(cls, codes_NL: NDArray[np.integer], device: torch.device | str = "cpu") -> "CodeLookup":
        """Build from the codes of a semantic-ID table."""
        return cls(torch.from_numpy(np.asarray(codes_NL, dtype=np.int64)).to(device))

    def batch(self, histories: Histories, max_items: int) -> Batch:
        """The most recent `max_items` items of each history, with times and users where they are known."""
        recent, device = histories.last(max_items), self.codes_NL.device
        times_BT, users = recent.times_BT, recent.user_ids
        return self.of_items(
            torch.from_numpy(recent.items_BT).to(device),
            None if times_BT is None else torch.from_numpy(times_BT).to(device),
            None if users is None else torch.tensor([*map(user_number, users)], device=device),
        )

    def of_items(
        self, items_BT: Tensor, times_BT: Tensor | None = None, users_B: Tensor | None = None
    ) -> Batch:
        """Item indices int64, padded with PADDING, with their times and the users' numbers where they are known."""
        inside_BT = items_BT != PADDING
        return Batch(
            self.codes_NL[items_BT * inside_BT] * inside_BT[:, :, None],
            inside_BT.sum(1),
            None if times_BT is None else times_BT * inside_BT,
            users_B,
            items_BT,
        )


def parameter_count(model: Any) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
