"""The interaction log: user, item, time."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from rqrec.data.ids import IdMap, UnknownIdError
from rqrec.data.sequences import Sequences
from rqrec.data.times import END

COLUMNS = ("user_id", "item_id", "timestamp")
FRACTION = "nanosecond"
TIE_BREAKS = ("keep", "hash")


@dataclass(frozen=True)
class Interactions:
    """An interaction log, one row per interaction, in the order of the source file.

    `log` has the columns `user_id`, `item_id` (strings) and `timestamp` (non-negative integer: seconds since 1970, or
    positions 0, 1, ... if only the order is known). A column `nanosecond` (integer), if there is one, orders the
    interactions within a second.

    Raises ValueError on an empty log, missing columns, nulls, and timestamps of another type, negative
    or after 2100.
    """

    log: pl.DataFrame

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.log.columns]
        if missing:
            raise ValueError(f"The log lacks {missing}; its columns are {self.log.columns}.")
        if self.log.is_empty():
            raise ValueError("The log is empty: at least one interaction is required.")
        for column in COLUMNS:
            if count := self.log[column].null_count():
                row = self.log[column].is_null().arg_true()[0]
                raise ValueError(f"{count} rows of the log have no {column} (the first is row {row}).")
        if not self.log.schema["timestamp"].is_integer():
            raise ValueError(f"timestamp must be an integer column, not {self.log.schema['timestamp']}.")
        outside = self.log["timestamp"].filter(~self.log["timestamp"].is_between(0, END, closed="left"))
        if len(outside):
            raise ValueError(
                f"The log has the timestamp {outside[0]}: timestamps must be seconds since 1970, up to 2100."
            )

    def __len__(self) -> int:
        return self.log.height

    def of_items(self, id_map: IdMap) -> "Interactions":
        """The interactions with items of `id_map`, in the same order. Raises ValueError if there are none."""
        in_catalog = pl.DataFrame({"item_id": id_map.all}, schema={"item_id": self.log.schema["item_id"]})
        return Interactions(self.log.join(in_catalog, on="item_id", how="semi", maintain_order="left"))

    def sequences(self, id_map: IdMap, *, tie_break: str = "keep") -> Sequences:
        """Each user's item indices, oldest first; users in order of first appearance.

        Interactions of a user at the same time keep the order of the log; with `tie_break` "hash" they
        get a pseudo-random order that is the same in every run, because a log sorted by item would leak that
        order to the model. Raises UnknownIdError if the log has an item that is not in `id_map`.
        """
        if tie_break not in TIE_BREAKS:
            raise ValueError(f"tie_break is {tie_break!r}; allowed are {', '.join(TIE_BREAKS)}.")
        items = pl.DataFrame(
            {"item_id": id_map.all, "item_index": np.arange(len(id_map), dtype=np.int32)},
            schema_overrides={"item_id": self.log.schema["item_id"]},
        )
        users = self.log.select(pl.col("user_id").unique(maintain_order=True)).with_row_index("user_index")
        fraction = [FRACTION] if FRACTION in self.log.columns else []
        indexed = (
            self.log.lazy()
            .join(items.lazy(), on="item_id", how="left", maintain_order="left")
            .join(users.lazy(), on="user_id", how="left", maintain_order="left")
            .select("item_index", "user_index", "timestamp", *fraction)
            .collect()
        )
        if indexed["item_index"].null_count():
            unknown = self.log["item_id"][int(indexed["item_index"].is_null().arg_max() or 0)]
            raise UnknownIdError(f"The log has item id {unknown!r}, which is not in the catalogue.")
        keys = ["user_index", "timestamp", *fraction]
        if tie_break == "hash":
            indexed = indexed.with_columns(tie_key=_tie_keys(indexed["user_index"], indexed["item_index"]))
            keys.append("tie_key")
        ordered = indexed.sort(keys, maintain_order=True)
        lengths = np.bincount(ordered["user_index"].to_numpy(), minlength=users.height)
        return Sequences(
            items=ordered["item_index"].to_numpy().astype(np.int32, copy=False),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            timestamps=ordered["timestamp"].to_numpy().astype(np.int64, copy=False),
            user_ids=tuple(users["user_id"].to_list()),
        )


def _tie_keys(users: pl.Series, items: pl.Series) -> pl.Series:
    """A pseudo-random key per interaction, uint64, that depends only on its user and item.

    Uses the finaliser of splitmix64 (G. Steele et al., 2014), so it is the same on every machine.
    """
    mixed = (users.to_numpy().astype(np.uint64) << np.uint64(32)) | items.to_numpy().astype(np.uint64)
    mixed += np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return pl.Series(mixed ^ (mixed >> np.uint64(31)))
