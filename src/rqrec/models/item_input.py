"""What a model reads of an item beside its codes: the vector of its content, and a learned vector of its own.

Codes say what an item has in common with others; its content says what it is, and a vector of its own remembers what
followed just this item in training.

Shapes: B batch, T items of a history, P positions of an item (its codes), N items of the catalogue, C width of a
content vector, D width of the model.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

CONTENT_STD = 0.3  # of a content vector's part of the input at initialisation, beside codes of about 1
VECTOR_STD = 0.02


class ItemContent(nn.Module):
    """A linear map of the content vectors of N items; the vectors are fixed, and saved with the model.

    A width of 0 is no content.
    """

    vectors_NC: Tensor

    def __init__(self, n_items: int, content_dim: int, width: int, std: float = CONTENT_STD) -> None:
        super().__init__()
        self.register_buffer("vectors_NC", torch.zeros(n_items, content_dim, dtype=torch.float16))
        self.map = nn.Linear(content_dim, width, bias=False)
        nn.init.normal_(self.map.weight, std=std * content_dim**-0.5)

    def set(self, content_NC: NDArray[np.floating]) -> None:
        """Set the content vectors of all items, which are centred and scaled to a mean deviation of 1.

        Raises ValueError if their number or width is another one.
        """
        if content_NC.shape != tuple(self.vectors_NC.shape):
            raise ValueError(
                f"There are content vectors of shape {content_NC.shape}, but the model has "
                f"{tuple(self.vectors_NC.shape)} (items, width)."
            )
        vectors_NC = torch.from_numpy(np.array(content_NC, dtype=np.float32))
        vectors_NC = vectors_NC - vectors_NC.mean(0)
        self.vectors_NC.copy_(vectors_NC / vectors_NC.std(0).mean().clamp(min=1e-6))

    def forward(self, items: Tensor | None = None) -> Tensor:
        """The part of the input [..., D] of items (indices int64 [...]); None: of all items, in order."""
        vectors = self.vectors_NC if items is None else self.vectors_NC[items]
        return self.map(vectors.to(self.map.weight.dtype))


class ItemInput(nn.Module):
    """The sum of an item's content and of its own learned vector, each mapped to the width of the model."""

    def __init__(self, n_items: int, content_dim: int, item_embed_dim: int, width: int) -> None:
        super().__init__()
        self.content = ItemContent(n_items, content_dim, width) if content_dim else None
        self.vector = nn.Embedding(n_items, item_embed_dim) if item_embed_dim else None
        if self.vector is not None:
            nn.init.normal_(self.vector.weight, std=VECTOR_STD)
            self.map = nn.Linear(item_embed_dim, width, bias=False)

    def added(self, x_BTPD: Tensor, items_BT: Tensor | None) -> Tensor:
        """Inputs with those of the items added, each at the last of its item's P positions.

        Only there, because a causal model reads the other positions while it is still generating the same item.
        `items_BT` (int64, padded with PADDING) may have more columns than there are items. Raises ValueError if the
        model needs the items and `items_BT` is None.
        """
        if self.content is None and self.vector is None:
            return x_BTPD
        if items_BT is None:
            raise ValueError("This model reads items beside their codes, but the batch has codes alone.")
        n_items, n_positions = x_BTPD.shape[1:3]
        items_BT1 = items_BT[:, :n_items, None].clamp(min=0)
        parts = []
        if self.content is not None:
            parts.append(self.content(items_BT1))
        if self.vector is not None:
            parts.append(self.map(self.vector(items_BT1)))
        return x_BTPD + functional.pad(torch.stack(parts).sum(0), (0, 0, n_positions - 1, 0))
