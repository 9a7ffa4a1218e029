"""How a catalogue differs from the one that its model was trained on: items added, removed and updated.

A model and its changes make the model that is served. Changes are cumulative: each version has all of them since the
training. Indices, codes and vectors of items never change, so that histories keep their meaning: new items follow the
others, removed ones keep their place, and an update changes what is shown and searched of an item.

Shapes: N items of the training, M new items, R removed ones, L levels, D width of a vector, P neighbours of an item.
"""

import errno
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
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
from rqrec.data.embeddings import read_with_zeros
from rqrec.data.fields import ANEW, INDEX, OWN_COLUMNS
from rqrec.data.ids import PADDING
from rqrec.data.tables import read_parquet

ADVICE = "Go to another version of the catalogue with `rqrec items rollback`."
# Errors of a file that is not there, or is none; ours have no number.
MISSING = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
ITEMS_FILE, ARRAYS_FILE, VECTORS_FILE = "items.parquet", "arrays.safetensors", "vectors.npy"
EARLIER_INDEX = "item"  # the name of the column that is INDEX now, which a field could have
CURRENT_FILE, ARTIFACT_TYPE = "current.json", "catalogue_version"
DESCRIPTION = ("title", "text")  # what an update may change, beside the fields of the catalogue
# The type and the number of dimensions of each array.
ARRAYS = {
    "removed": ("int64", 1),
    "codes": ("int64", 2),
    "neighbours": ("int32", 2),
    "cosines": ("float32", 2),
}


@dataclass(frozen=True)
class CatalogueChanges:
    """All changes since the training."""

    added: pl.DataFrame
    """New items with `item_id`, `title`, `text` and fields of the catalogue; the first one has the item index N."""
    updated: pl.DataFrame
    """`INDEX`, `title`, `text` and fields of items of the training that are described otherwise since; null
    where nothing changed, or, with `ANEW` (bool), where there is no value."""
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
        updated = {INDEX: pl.Int64, **dict.fromkeys(DESCRIPTION, pl.String)}
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
        items = read_parquet(folder / ITEMS_FILE, strings=("item_id", *DESCRIPTION))
        items = items.rename({EARLIER_INDEX: INDEX} if INDEX not in items.columns else {}, strict=False)
        if not items.schema.get(INDEX, pl.String).is_integer():
            raise _damaged(folder / ITEMS_FILE, "it does not say which items it describes by whole numbers")
        arrays = read_safetensors(folder / ARRAYS_FILE)
        for name in ("removed", *arrays):
            found = arrays.get(name)
            needed = ARRAYS.get(name.partition(".")[0], ("absent", 0))
            if found is None or needed != (found.dtype.name, found.ndim):
                is_there = "missing" if found is None else _described(found)
                must_be = "{} with {} dimensions".format(*needed)
                raise _damaged(
                    folder / ARRAYS_FILE, f"the array {name!r} is {is_there}, but must be {must_be}"
                )
        path = folder / VECTORS_FILE
        if items.schema.get(ANEW, pl.Boolean) != pl.Boolean:
            raise _damaged(folder / ITEMS_FILE, f"{ANEW!r} is not true or false")
        changes = cls(
            items.filter(pl.col(INDEX).is_null()).drop(INDEX, *([ANEW] if ANEW in items.columns else [])),
            items.filter(pl.col(INDEX).is_not_null()).drop("item_id"),
            arrays["removed"],
            read_with_zeros(path)[0] if path.is_file() else None,
            {name.partition(".")[2]: one for name, one in arrays.items() if name.startswith("codes.")},
            arrays.get("neighbours"),
            arrays.get("cosines"),
        )
        count, vectors = len(changes.added), changes.vectors_MD
        parts: list[NDArray[Any] | None] = [vectors, changes.neighbours_MP, changes.cosines_MP]
        rows = [len(one) for one in (*parts, *changes.codes.values()) if one is not None]
        if (count and vectors is None) or any(number != count for number in rows):
            raise _damaged(
                folder, f"it does not hold one row for each of its {count} new items in every file"
            )
        if changes.cosines_MP is not None and not np.isfinite(changes.cosines_MP).all():
            raise _damaged(folder / ARRAYS_FILE, "it has NaN or infinite values")
        return changes

    def check_fits(self, n_items: int, experts: Collection[str]) -> None:
        """Raise ValueError unless these can be changes of a model of N items with these codes experts."""
        count, neighbours_MP, cosines_MP = len(self.added), self.neighbours_MP, self.cosines_MP
        shapes = [None if one is None else one.shape for one in (neighbours_MP, cosines_MP)]
        if not _all_within(self.removed, 0, n_items + count):
            what = f"removed items are not indices below {n_items + count}"
        elif not _all_within(self.updated[INDEX].to_numpy(), 0, n_items):
            what = f"updated items are not indices below {n_items}"
        elif count and not set(experts) <= set(self.codes):
            what = (
                f"new items have semantic IDs of {sorted(self.codes)}, but the model reads {sorted(experts)}"
            )
        elif shapes[0] != shapes[1]:
            what = f"the neighbours have the shape {shapes[0]}, but their cosines {shapes[1]}"
        elif neighbours_MP is not None and not _all_within(neighbours_MP, PADDING, n_items):
            what = f"neighbours are not indices below {n_items}"
        else:
            return
        with says_how_to_leave():
            raise _damaged("The version of the catalogue", what)

    def catalog(self, trained: Catalog) -> Catalog:
        """All items, those that were removed included: those of the training, and the new ones."""
        items = trained.items
        if len(self.added):
            items = pl.concat([items, self.added], how="diagonal")
        if len(self.updated):
            updated = self.updated.with_columns(pl.col(INDEX).cast(pl.UInt32))
            items = items.with_row_index(INDEX)
            if ANEW in updated.columns:
                items = without_fields(items, updated.filter(ANEW)[INDEX])
                updated = updated.drop(ANEW)
            items = items.update(updated, on=INDEX).drop(INDEX)
        return Catalog(items)

    def available(self, n_items: int) -> NDArray[np.bool_]:
        """Which of all items may be recommended: those that were not removed, bool [n_items]."""
        available_N = np.ones(n_items, dtype=bool)
        available_N[self.removed] = False
        return available_N


def without_fields(items: pl.DataFrame, indices: pl.Series) -> pl.DataFrame:
    """Items without the values of fields of those whose `INDEX` is one of these."""
    fields = pl.exclude(*OWN_COLUMNS)
    return items.with_columns(pl.when(~pl.col(INDEX).is_in(indices.implode())).then(fields))


def _damaged(path: Path | str, what: str) -> ValueError:
    return ValueError(f"{path} is damaged: {what}.")


def _described(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _all_within(indices: NDArray[np.integer], low: int, high: int) -> bool:
    """Whether all are at least `low` and below `high`."""
    return bool(((indices >= low) & (indices < high)).all())


def read_changes(folder: Path, number: int) -> CatalogueChanges:
    """The changes of a version of the catalogue of a "retrieval" artefact.

    Raises ValueError if they are damaged, or those of another model.
    """
    if not number:
        return CatalogueChanges.none()
    trained = read_manifest(folder, "retrieval").hash
    with says_how_to_leave():
        path = folder / VERSIONS / str(number)
        if read_manifest(path, ARTIFACT_TYPE, verify=True).inputs.get("retrieval") != trained:
            raise ValueError(f"{path} has the items of another model.")
        return CatalogueChanges.read(path)


@contextmanager
def says_how_to_leave() -> Iterator[None]:
    """Raises ValueError with advice in place of what reading a damaged version of a catalogue raises.

    An OSError that says nothing of the version passes, such as too many open files.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in MISSING:
            raise
        raise ValueError(f"{error} {ADVICE}") from error


def current_version(folder: Path) -> int:
    """The version of an artefact's catalogue that is served; 0 without any change."""
    path = folder / VERSIONS / CURRENT_FILE
    if not path.is_file():
        return 0
    values = read_json(path)
    number = values.get("version") if isinstance(values, dict) else None
    if type(number) is not int or number < 0:
        raise ValueError(f"{path} does not name a version. {ADVICE}")
    return number
