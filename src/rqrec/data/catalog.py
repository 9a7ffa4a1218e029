"""The catalogue: item ids, titles and descriptive texts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import polars as pl

from rqrec.core.artifact import atomic_write
from rqrec.data.ids import IdMap
from rqrec.data.tables import read_parquet

CATALOG_FILE = "catalog.parquet"
SHOWN = 3  # titles in a repr


@dataclass(frozen=True)
class Catalog:
    """The items of a dataset, one row each; the row number is the item index.

    `items` has the string columns `item_id` (unique), `title` (for display, may be empty) and `text` (input of
    the text encoder). Other columns are kept. Raises ValueError on missing columns, an empty catalogue, and
    empty or repeated ids.
    """

    items: pl.DataFrame
    template: str | None = None
    """The template that the texts were made with where the reader of the items chose it; not written."""

    def __post_init__(self) -> None:
        for column in ("item_id", "title", "text"):
            if column not in self.items.columns:
                raise ValueError(f"The catalogue has no column {column!r}; it has {self.items.columns}.")
        if self.items.is_empty():
            raise ValueError("The catalogue is empty: at least one item is required.")
        _ = self.id_map  # check for repeated and empty ids now rather than at first use

    def __len__(self) -> int:
        return self.items.height

    @cached_property
    def id_map(self) -> IdMap:
        """The map between item ids and item indices."""
        return IdMap(self.items["item_id"])

    def __repr__(self) -> str:
        titles = ", ".join(self.titles_of(range(min(SHOWN, len(self)))))
        more = ", ..." if len(self) > SHOWN else ""
        return f"Catalog({len(self):,} items: {titles}{more})"

    def titles_of(self, items: Sequence[int]) -> list[str]:
        """The titles of items by their indices (see `titles`)."""
        rows = self.items.select("item_id", "title")[list(items)].iter_rows()
        return [title or item_id for item_id, title in rows]

    def titles(self) -> list[str]:
        """The title of each item, or its id if it has none; N strings in order of item index."""
        return [title or item_id for item_id, title in self.items.select("item_id", "title").iter_rows()]

    def of_items(self, item_ids: pl.Series) -> "Catalog":
        """The catalogue of the items whose id is in `item_ids`, in the order of this catalogue."""
        return replace(self, items=self.items.filter(pl.col("item_id").is_in(item_ids.implode())))

    def write(self, folder: Path) -> None:
        """Write `catalog.parquet` into `folder`."""
        with atomic_write(folder / CATALOG_FILE) as file:
            self.items.write_parquet(file)

    @classmethod
    def read(cls, folder: Path) -> "Catalog":
        """Read a catalogue written by `write`. Raises ValueError, naming the file, if it is damaged."""
        return cls(read_parquet(folder / CATALOG_FILE, strings=("item_id", "title", "text")))
