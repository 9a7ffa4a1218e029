"""The log: who took which item, when."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from rqrec.data.ids import IdMap, UnknownIdError
from rqrec.data.sequences import Sequences

COLUMNS = ("user_id", "item_id", "timestamp")


@dataclass(frozen=True)
class Interactions:
    """An interaction log, one row an interaction, in the order of the file that it came from.

    `log` has the columns `user_id`, `item_id` (strings) and `timestamp` (integer, in any unit, not
    negative). Raises ValueError on missing columns, missing values and negative timestamps.
    """

    log: pl.DataFrame

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.log.columns]
        if missing:
            raise ValueError(f"The log lacks {missing}; its columns are {self.log.columns}.")
        if self.log.is_empty():
            raise ValueError("The log is empty: at least one interaction is needed.")
        for column in COLUMNS:
            if count := self.log[column].null_count():
                row = self.log[column].is_null().arg_true()[0]
                raise ValueError(f"{count} rows of the log have no {column} (the first is row {row}).")
        if not self.log.schema["timestamp"].is_integer():
            raise ValueError(f"timestamp must be an integer column, not {self.log.schema['timestamp']}.")
        lowest = self.log["timestamp"].min()
        if isinstance(lowest, int) and lowest < 0:
            raise ValueError(f"The log has a negative timestamp ({lowest}): time must not be negative.")

    def __len__(self) -> int:
        return self.log.height

    def of_items(self, id_map: IdMap) -> "Interactions":
        """The interactions whose item `id_map` has, in the same order."""
        known = pl.DataFrame({"item_id": id_map.all}, schema={"item_id": self.log.schema["item_id"]})
        return Interactions(self.log.join(known, on="item_id", how="semi", maintain_order="left"))

    def sequences(self, id_map: IdMap) -> Sequences:
        """Each user's item indices, oldest first; users in order of first appearance.

        Interactions of a user at the same time keep the order of the log. Raises UnknownIdError where the
        log has an item that `id_map` lacks.
        """
        items = pl.DataFrame(
            {"item_id": list(id_map.all), "item_index": np.arange(len(id_map), dtype=np.int32)},
            schema_overrides={"item_id": self.log.schema["item_id"]},
        )
        users = self.log.select(pl.col("user_id").unique(maintain_order=True)).with_row_index("user_index")
        ordered = (
            self.log.lazy()
            .join(items.lazy(), on="item_id", how="left", maintain_order="left")
            .join(users.lazy(), on="user_id", how="left", maintain_order="left")
            .sort("user_index", "timestamp", maintain_order=True)
            .select("item_id", "item_index", "user_index", "timestamp")
            .collect()
        )
        if ordered["item_index"].null_count():
            unknown = ordered.filter(pl.col("item_index").is_null())["item_id"][0]
            raise UnknownIdError(f"The log has item id {unknown!r}, which the catalogue lacks.")
        lengths = np.bincount(ordered["user_index"].to_numpy(), minlength=users.height)
        return Sequences(
            items=ordered["item_index"].to_numpy().astype(np.int32, copy=False),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            timestamps=ordered["timestamp"].to_numpy().astype(np.int64, copy=False),
            user_ids=tuple(users["user_id"].to_list()),
        )
