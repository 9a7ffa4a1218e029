"""Rows of a table that cannot be used: counted by reason, and refused or dropped."""

import polars as pl

from rqrec.core.progress import log
from rqrec.data.tables import Table

CORRECT_OR_DROP = "Correct them, or drop them with --drop-invalid (drop_invalid=True in a gin file)."
HOW_TO_DROP_MORE = "--max-invalid 1 (max_invalid=1.0 in a gin file)"


class InvalidRows:
    """The rows of a table that cannot be used; each counts once, with its first reason."""

    def __init__(self, table: Table, rows: pl.Series) -> None:
        """`rows` is a mask of the rows of the table that count; the others are left out without a word."""
        self._table = table
        self._rows = int(rows.sum())
        self._valid = rows
        self._reasons: list[str] = []
        self._hints: list[str] = []

    def add(self, reason: str, invalid: pl.Series, values: pl.Series | None = None, hint: str = "") -> None:
        """Count the rows where the mask `invalid` is true; `values` are shown for the first of them.

        `hint` is one more sentence for the message.
        """
        invalid = invalid.fill_null(value=False) & self._valid
        if count := int(invalid.sum()):
            row = int(invalid.arg_max() or 0)
            shown = "" if values is None or values[row] is None else f"{str(values[row])[:100]!r} in "
            self._reasons.append(
                f"{count} {'has' if count == 1 else 'have'} {reason} (the first is {shown}{self._table.place(row)})"
            )
            self._hints += [f" {hint}"] if hint else []
            self._valid &= ~invalid

    def kept(self, *, drop: bool, at_most: float = 1.0, advice: str = CORRECT_OR_DROP) -> pl.Series:
        """A mask of the rows that can be used.

        Raises ValueError that counts the others by reason, and gives `advice`, unless they may be dropped and are no
        larger share of all rows than `at_most`; then this is logged.
        """
        count = self._rows - int(self._valid.sum())
        reasons = "; ".join(self._reasons)
        hints = "".join(self._hints)
        if count and count == self._rows:
            raise ValueError(f"{self._table.path}: none of the {count} rows can be used: {reasons}.{hints}")
        found = f"{self._table.path}: {count} of {self._rows} rows cannot be used"
        if count and not drop:
            raise ValueError(f"{found}: {reasons}.{hints} {advice}")
        if count > at_most * self._rows:
            raise ValueError(
                f"{found}, and no more than {at_most:.0%} are dropped: {reasons}.{hints} Correct them, or drop more "
                f"with {HOW_TO_DROP_MORE}."
            )
        if count:
            log(f"{found} and are dropped: {reasons}.{hints}")
        return self._valid
