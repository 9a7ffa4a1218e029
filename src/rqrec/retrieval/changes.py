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
import safetensors.numpy
from numpy.typing import NDArray

from rqrec.core.arrays import read_safetensors
from rqrec.core.artifact import VERSIONS, atomic_write, read_json, read_manifest
from rqrec.data.catalog import Catalog
from rqrec.data.tables import read_parquet

ITEMS_FILE, ARRAYS_FILE, VECTORS_FILE = "items.parquet", "arrays.safetensors", "vectors.npy"
CURRENT_FILE, ARTIFACT_TYPE = "current.json", "catalogue_version"
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
            file.write(
                safetensors.numpy.save({name: np.ascontiguousarray(one) for name, one in arrays.items()})
            )
        if self.vectors_MD is not None:
            with atomic_write(folder / VECTORS_FILE) as file:
                np.save(file, self.vectors_MD)

    @classmethod
    def read(cls, folder: Path) -> "CatalogueChanges":
        """Read what `write` wrote. Raises ValueError if its parts do not fit each other."""
        items = read_parquet(folder / ITEMS_FILE, strings=("item_id", *DESCRIPTION), integers=("item",))
        arrays = read_safetensors(folder / ARRAYS_FILE)
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
        if changes.cosines_MP is not None and not np.isfinite(changes.cosines_MP).all():
            raise ValueError(
                f"{folder / ARRAYS_FILE} has NaN or infinite values. Go back to another version with `rqrec items "
                f"rollback`."
            )
        if vectors is not None and not (
            vectors.dtype.kind == "f" and vectors.ndim == 2 and np.isfinite(vectors).all()
        ):
            raise ValueError(
                f"{path} does not hold finite vectors, but {vectors.dtype} {list(vectors.shape)}. Go back to another "
                f"version with `rqrec items rollback`."
            )
        return changes

    def catalog(self, trained: Catalog) -> Catalog:
        """All items, those that were removed included: those of the training, and the new ones."""
        items = trained.items
        if len(self.added):
            items = pl.concat([items, self.added], how="diagonal")
        if len(self.updated):
            updated = self.updated.with_columns(pl.col("item").cast(pl.UInt32))
            items = items.with_row_index("item").update(updated, on="item").drop("item")
        return Catalog(items)

    def available(self, n_items: int) -> NDArray[np.bool_]:
        """Which of all items may be recommended: those that were not removed, bool [n_items]."""
        available_N = np.ones(n_items, dtype=bool)
        available_N[self.removed] = False
        return available_N


def read_changes(folder: Path, number: int) -> CatalogueChanges:
    """The changes of a version of the catalogue of a "retrieval" artefact.

    Raises ValueError if they are damaged, or those of another model.
    """
    if not number:
        return CatalogueChanges.none()
    path = folder / VERSIONS / str(number)
    made_for = read_manifest(path, ARTIFACT_TYPE, verify=True).inputs.get("retrieval")
    if made_for != read_manifest(folder, "retrieval").hash:
        raise ValueError(
            f"{path} has the items of another model: choose another version with `rqrec items rollback`."
        )
    return CatalogueChanges.read(path)


def current_version(folder: Path) -> int:
    """The version of an artefact's catalogue that is served; 0 without any change."""
    path = folder / VERSIONS / CURRENT_FILE
    if not path.is_file():
        return 0
    values = read_json(path)
    number = values.get("version") if isinstance(values, dict) else None
    if type(number) is not int or number < 0:
        raise ValueError(f"{path} does not name a version: choose one with `rqrec items rollback`.")
    return number
