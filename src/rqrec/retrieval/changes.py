"""How a catalogue differs from the one that its model was trained on: items added, removed and updated.

A model and its changes make the model that is served. Changes are cumulative: each version has all of them since the
training. Indices, codes and vectors of items never change, so that histories keep their meaning: new items follow the
others, removed ones keep their place, and an update changes what is shown and searched of an item.

Shapes: N items of the training, M new items, L levels, D width of a vector, P neighbours of an item.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import safetensors.torch
import torch
from numpy.typing import NDArray

from rqrec.core.artifact import atomic_write
from rqrec.core.tensors import read_tensors
from rqrec.data.tables import read_parquet

ITEMS_FILE, ARRAYS_FILE, VECTORS_FILE = "items.parquet", "arrays.safetensors", "vectors.npy"
DESCRIPTION = ("title", "text")  # what an update may change, beside the fields of the catalogue


@dataclass(frozen=True)
class CatalogueChanges:
    """All changes since the training."""

    added: pl.DataFrame
    """New items with `item_id`, `title`, `text` and fields of the catalogue; the first one has the item index N."""
    updated: pl.DataFrame
    """`item` (index), `title`, `text` and fields of items of the training that are described otherwise since; null
    where nothing changed."""
    removed: NDArray[np.int64]
    """Indices of removed items, ascending."""
    vectors_MD: NDArray[np.floating] | None = None
    """The vectors of the new items; None if there are none."""
    codes: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """By expert: the semantic IDs int64 [M, L] of the new items."""
    neighbours_MP: NDArray[np.int32] | None = None
    """The items most similar to each new item by content, among those of the training; None if neighbours do not use
    content."""
    cosines_MP: NDArray[np.float32] | None = None
    """How similar they are."""

    @classmethod
    def none(cls) -> "CatalogueChanges":
        """No change."""
        items = dict.fromkeys(("item_id", *DESCRIPTION), pl.String)
        updated = {"item": pl.Int64, **dict.fromkeys(DESCRIPTION, pl.String)}
        return cls(pl.DataFrame(schema=items), pl.DataFrame(schema=updated), np.empty(0, dtype=np.int64))

    def write(self, folder: Path) -> None:
        """Write the changes into `folder`."""
        with atomic_write(folder / ITEMS_FILE) as file:
            pl.concat([self.added, self.updated], how="diagonal").write_parquet(file)
        arrays: dict[str, Any] = {
            "removed": self.removed,
            **{f"codes.{name}": codes for name, codes in self.codes.items()},
        }
        if self.neighbours_MP is not None and self.cosines_MP is not None:
            arrays |= {"neighbours": self.neighbours_MP, "cosines": self.cosines_MP}
        with atomic_write(folder / ARRAYS_FILE) as file:
            file.write(safetensors.torch.save({name: torch.tensor(one) for name, one in arrays.items()}))
        if self.vectors_MD is not None:
            with atomic_write(folder / VECTORS_FILE) as file:
                np.save(file, self.vectors_MD)

    @classmethod
    def read(cls, folder: Path) -> "CatalogueChanges":
        """Read what `write` wrote. Raises ValueError if its parts do not fit each other."""
        items = read_parquet(folder / ITEMS_FILE, strings=("item_id", *DESCRIPTION), integers=("item",))
        arrays = {name: one.numpy() for name, one in read_tensors(folder / ARRAYS_FILE).items()}
        path = folder / VECTORS_FILE
        changes = cls(
            items.filter(pl.col("item").is_null()).drop("item"),
            items.filter(pl.col("item").is_not_null()).drop("item_id"),
            arrays["removed"],
            np.load(path, allow_pickle=False) if path.is_file() else None,
            {name.partition(".")[2]: one for name, one in arrays.items() if name.startswith("codes.")},
            arrays.get("neighbours"),
            arrays.get("cosines"),
        )
        count, vectors = len(changes.added), changes.vectors_MD
        parts: list[NDArray[Any] | None] = [vectors, changes.neighbours_MP, changes.cosines_MP]
        rows = [len(one) for one in (*parts, *changes.codes.values()) if one is not None]
        if (count and vectors is None) or any(number != count for number in rows):
            raise ValueError(
                f"{folder} is damaged: it does not hold one row for each of its {count} new items in every file. Go "
                f"back to another version with `rqrec items rollback`."
            )
        if vectors is not None and not (
            vectors.dtype.kind == "f" and vectors.ndim == 2 and np.isfinite(vectors).all()
        ):
            raise ValueError(
                f"{path} does not hold finite vectors, but {vectors.dtype} {list(vectors.shape)}. Go back to another "
                f"version with `rqrec items rollback`."
            )
        return changes
