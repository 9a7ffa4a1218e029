"""A log of interactions as people have it: which of its columns are the user, the item, the time and the rating."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from rqrec.data.columns import LOG_ROLES, OPTIONS, listed, log_columns, renamed
from rqrec.data.tables import Table

HIGHEST_RATING = 100  # a larger number in a log without a header is a time
SAMPLE_ROWS = 100


@dataclass(frozen=True)
class LogTable:
    """A log and the column of each role, by `user_id`, `item_id`, `timestamp` and perhaps `rating`."""

    table: Table
    columns: dict[str, str]

    @property
    def selected(self) -> list[pl.Expr]:
        """Expressions for the columns, named as their roles."""
        return [pl.col(column).alias(role) for role, column in self.columns.items()]


def read_as_log(
    table: Table, given: Mapping[str, str | None] | None = None, roles: Sequence[str] = LOG_ROLES
) -> LogTable:
    """A table with its columns recognised and logged; those in `given` (by role) are as the user says.

    Without a header, 3 columns are user, item and time, and 4 have a rating before or after the time. Raises
    ValueError naming the file if a column is missing or ambiguous.
    """
    given = given or {}
    if table.has_header or any(given.get(role) for role in LOG_ROLES):
        columns = log_columns(table.path, table.columns, given, roles)
        table.say(renamed(columns))
    else:
        order = _order(table)
        columns = {role: column for role, column in zip(order, table.columns, strict=True) if role in roles}
        table.say([f"its columns are read as {', '.join(order)}"])
    return LogTable(table, columns)


def _order(table: Table) -> tuple[str, ...]:
    """The roles of the columns of a log without a header, in order. Raises ValueError if they are not clear."""
    if len(table.columns) == 3:
        return LOG_ROLES
    if len(table.columns) == 4:
        with_numbers = table.collect(pl.all().head(SAMPLE_ROWS).cast(pl.Float64, strict=False))
        small = [(with_numbers[column] <= HIGHEST_RATING).all() for column in table.columns]
        known = [with_numbers[column].null_count() == 0 for column in table.columns]
        ratings = [position for position in (2, 3) if small[position] and known[position]]
        if ratings == [2]:
            return ("user_id", "item_id", "rating", "timestamp")
        if ratings == [3]:
            return ("user_id", "item_id", "timestamp", "rating")
    options = ", ".join(f"--{OPTIONS[role].replace('_', '-')}" for role in LOG_ROLES)
    raise ValueError(
        f"{table.path} has no header, and what its {len(table.columns)} columns are is not clear. Add a first line "
        f"such as user_id,item_id,timestamp, or say which of {listed(table.columns)} they are with {options}."
    )
