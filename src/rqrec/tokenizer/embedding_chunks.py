"""Validation and chunked reading of the item embeddings that a tokenizer is given.

Shapes: N items, B rows of a chunk, D input dimensions.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rqrec.data.embeddings import RowSubset

FITTED_ROWS = 65_536  # maximum number of items that codebooks are fitted to

Embeddings = Tensor | NDArray[np.floating] | RowSubset


def check_shape(x_ND: Embeddings, dim: int | None = None) -> None:
    """Raise ValueError unless `x_ND` is a non-empty float matrix with `dim` columns (None: any number)."""
    floating = (
        x_ND.is_floating_point() if isinstance(x_ND, Tensor) else np.issubdtype(x_ND.dtype, np.floating)
    )
    if not floating:
        raise ValueError(
            f"Embeddings have dtype {x_ND.dtype}; a float dtype is required: convert them first."
        )
    if x_ND.ndim != 2:
        raise ValueError(f"Embeddings have shape {tuple(x_ND.shape)}; [num_items, dim] is required.")
    if not len(x_ND):
        raise ValueError("The embeddings are empty: at least one item is required.")
    if dim is not None and x_ND.shape[1] != dim:
        raise ValueError(
            f"Embeddings have {x_ND.shape[1]} dimensions, but the tokenizer expects {dim}. "
            f"Embed the items with the encoder that it was trained with, or retrain the tokenizer."
        )


def chunks(
    x_ND: Embeddings, size: int, *, dim: int | None = None, device: torch.device | None = None
) -> Iterator[Tensor]:
    """Iterate over the rows in order, in float32 chunks [B, D] of at most `size` rows on `device`.

    Raises ValueError on a wrong shape or dtype, and on NaN or infinite values (naming the rows).
    """
    check_shape(x_ND, dim)
    for start in range(0, len(x_ND), size):
        part = x_ND[start : start + size]
        if not isinstance(part, Tensor):
            part = torch.from_numpy(np.array(part, dtype=np.float32))  # a copy: memory maps are read-only
        x_BD = part.to(device=device, dtype=torch.float32)
        # A finite sum implies finite values. The reverse does not hold (overflow), so check before refusing.
        if not torch.isfinite(x_BD.sum()):
            bad = (~torch.isfinite(x_BD).all(dim=1)).nonzero().squeeze(1)
            if len(bad):
                rows = ", ".join(str(start + int(row)) for row in bad[:5])
                more = f" and {len(bad) - 5} more nearby" if len(bad) > 5 else ""
                raise ValueError(
                    f"Embeddings have NaN or infinite values in row {rows}{more}: "
                    f"embed these items again or remove them."
                )
        yield x_BD


def sample_rows(x_ND: Embeddings, size: int, generator: torch.Generator) -> Embeddings:
    """A random sample of `size` rows without replacement, in their original order; all rows if N <= `size`."""
    if len(x_ND) <= size:
        return x_ND
    rows = torch.randperm(len(x_ND), generator=generator)[:size].sort().values
    return x_ND[rows.to(x_ND.device)] if isinstance(x_ND, Tensor) else x_ND[rows.numpy()]
