"""The fields of items: the columns of a catalogue, by which rules allow, limit and prefer items.

Shapes: N items, M values (an item may have several, or none), G groups of an item (at most).
"""

import reprlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rqrec.data.columns import listed
from rqrec.data.ids import PADDING
from rqrec.data.item_texts import is_readable
from rqrec.data.templates import MISSING

LONG_TEXT = 200  # mean characters of a column of texts, which nobody compares
EMBEDDING_ROW = "embedding_row"  # column with the row of each item in the embeddings that were given
NO_FIELDS = ("text", EMBEDDING_ROW)  # columns of a catalogue that only stages read
# Columns of the changes of a catalogue: the index of an item, and whether all of it is described anew, so that fields
# that are not given have no value.
INDEX, ANEW = "rqrec:index", "rqrec:anew"
OWN_COLUMNS = ("item_id", "title", *NO_FIELDS, INDEX, ANEW)
_LISTS, _GROUPS = r"[|;,]", r"[|;]"  # a comma may belong to a name: "Hasbro, Inc."
_CURRENCY = r"^[$€£¥]\s*"
DECIMAL_COMMA = (
    r"^[-+]?(?:\d+|\d{1,3}(?:\.\d{3})+),\d\d$"  # 9,99 or 1.299,00: two digits, so that 38,40,42 is a list
)
_WHOLE = r"^[-+]?\d+$"


class UnknownFieldError(ValueError):
    """A field that the catalogue does not have."""


class FieldValues(NamedTuple):
    """All values of a field."""

    items: NDArray[np.int64]
    """int64 [M]: the item of each value."""
    values: pl.Series
    """[M]: Float64, Boolean, dates or times, or String in lower case without spaces around."""


@dataclass(frozen=True)
class Fields:
    """The fields of N items; each is prepared when it is first asked for."""

    items: pl.DataFrame
    _prepared: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return self.items.height

    @property
    def names(self) -> list[str]:
        """The names of all fields."""
        return [
            name
            for name, dtype in self.items.schema.items()
            if name not in NO_FIELDS and type_of_field(dtype) is not None
        ]

    def find(self, name: str) -> str:
        """The field of this name, also if upper and lower case differ. Raises UnknownFieldError, with all fields."""
        if name in self.names:
            return name
        found = [known for known in self.names if known.lower() == name.lower()]
        if len(found) != 1:
            raise UnknownFieldError(
                f"there is no field {reprlib.repr(name)}; the fields are {listed(self.names)}"
            )
        return found[0]

    def values(self, name: str) -> FieldValues:
        """The values of a field, for comparisons: of a text also its parts between commas, semicolons and bars."""
        return self._once(("values", name), lambda: self._values(name, _LISTS, whole=True))

    def written(self, name: str) -> FieldValues:
        """The values of a field as they are written, of a text its parts between semicolons or bars."""
        return self._once(("written", name), lambda: self._values(name, _GROUPS, whole=False, lower=False))

    def groups(self, name: str) -> NDArray[np.int64]:
        """The number of each of an item's values, each once, int64 [N, G] padded with PADDING.

        The values of a text are its parts between semicolons or bars.
        """
        return self._once(("groups", name), lambda: self._groups(name))

    def _once(self, key: tuple[str, str], make: Any) -> Any:
        if key not in self._prepared:
            self._prepared[key] = make()
        return self._prepared[key]

    def _groups(self, name: str) -> NDArray[np.int64]:
        items_M, values = self._values(name, _GROUPS, whole=False)
        numbers_M = values.cast(pl.String).cast(pl.Categorical).to_physical().cast(pl.Int64).to_numpy()
        pairs = np.sort((items_M << 32) + numbers_M)
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]  # each once; a hundred times as fast as np.unique
        items_M, numbers_M = pairs >> 32, pairs & 0xFFFFFFFF
        counts_N = np.bincount(items_M, minlength=len(self))
        columns_M = np.arange(len(items_M)) - np.repeat(np.cumsum(counts_N) - counts_N, counts_N)
        groups_NG = np.full((len(self), max(1, int(counts_N.max(initial=0)))), PADDING, dtype=np.int64)
        groups_NG[items_M, columns_M] = numbers_M
        return groups_NG

    def _values(self, name: str, separators: str, *, whole: bool, lower: bool = True) -> FieldValues:
        """The values of a field; `whole`: also texts that are divided, and dates as dates and not as text."""
        table = pl.DataFrame({"value": as_field(self.items[name])}).with_row_index("item")
        if isinstance(table["value"].dtype, pl.List):
            table = table.explode("value")
        table = table.drop_nulls()
        dtype = table["value"].dtype
        if dtype.is_numeric():
            table = table.with_columns(pl.col("value").cast(pl.Float64)).filter(pl.col("value").is_not_nan())
        elif dtype != pl.Boolean and not (whole and dtype.is_temporal()):
            table = table.with_columns(pl.col("value").cast(pl.String))
            if lower:
                table = table.with_columns(pl.col("value").str.to_lowercase())
            split = pl.col("value").str.contains(separators)
            parts = table.filter(split).with_columns(
                pl.col("value").str.replace_all(separators, "\n").str.split("\n")
            )
            table = pl.concat([table if whole else table.filter(~split), parts.explode("value")])
            table = table.with_columns(pl.col("value").str.strip_chars())
            table = table.filter(~pl.col("value").str.to_lowercase().is_in(list(MISSING)))
        return FieldValues(table["item"].cast(pl.Int64).to_numpy(), table["value"])


def as_numbers(values: pl.Series) -> pl.Series:
    """Values as Float64, null where a text is no number; a currency sign before it does not count."""
    if values.dtype == pl.String:
        return values.str.replace(_CURRENCY, "").cast(pl.Float64, strict=False)
    return values.cast(pl.Float64)


def kept_fields(items: pl.DataFrame, read: Collection[str]) -> tuple[pl.DataFrame, list[str]]:
    """The columns of an items table that a catalogue keeps as fields, and what to say about it.

    These are text (but not long ones), numbers, dates, and lists of these (see `type_of_field`). `read` are the
    columns that the catalogue has under names of its own.
    """
    others = [name for name in items.columns if name not in read]
    kept = [name for name in others if name not in OWN_COLUMNS and _is_comparable(items[name])]
    left_out = [name for name in others if name not in kept and items[name].null_count() < len(items)]
    notes = [f"rules can use the fields {listed(kept)}"] if kept else []
    if left_out:
        notes.append(f"it keeps no field {listed(left_out)}, which is long text or of another kind")
    commas = [name for name in kept if has_decimal_commas(items[name])]
    if commas:
        notes.append(
            f"{listed(commas)} {'has' if len(commas) == 1 else 'have'} decimal commas, read as numbers"
        )
    fields = items.select(kept).with_columns(from_decimal_commas(pl.col(name)) for name in commas)
    return fields.with_columns(as_field(fields[name]) for name in kept), notes


def type_of_field(dtype: Any) -> pl.DataType | None:
    """The type in which a catalogue keeps values of a type as a field; None for those that are none.

    New items may have any number then, and not only those of few digits or bytes. Times are in UTC.
    """
    if isinstance(dtype, pl.List | pl.Array):
        inner = type_of_field(dtype.inner)
        return inner if inner is None or isinstance(inner, pl.List) else pl.List(inner)
    if not is_readable(dtype) or dtype == pl.Null or dtype == pl.Duration:
        return None
    if dtype.is_integer() and dtype not in (pl.UInt64, pl.Int128):
        return pl.Int64()
    if dtype.is_numeric():
        return pl.Float64()
    return pl.Datetime("us") if dtype == pl.Datetime else dtype


def as_field(values: pl.Series) -> pl.Series:
    """Values in the type of their field."""
    kept = type_of_field(values.dtype)
    assert kept is not None
    values = values.cast(_with_lists(values.dtype))
    while isinstance(values.dtype, pl.List) and isinstance(values.dtype.inner, pl.List):
        values = values.list.eval(pl.element().explode())
    if values.dtype in (pl.Float32, pl.List(pl.Float32)):  # as text, which has the digits that were meant
        values = values.cast(pl.List(pl.String) if isinstance(values.dtype, pl.List) else pl.String)
    return values.cast(kept)


def _with_lists(dtype: Any) -> Any:
    """The type with lists in place of arrays."""
    return pl.List(_with_lists(dtype.inner)) if isinstance(dtype, pl.List | pl.Array) else dtype


def has_decimal_commas(values: pl.Series) -> bool:
    """Whether texts are numbers with decimal commas, such as 9,99 or 1.299,00; some may be whole."""
    if values.dtype != pl.String:
        return False
    given = values.str.strip_chars().drop_nulls()
    given = given.filter(~given.str.to_lowercase().is_in(list(MISSING)) & (given != ""))
    commas = given.str.contains(DECIMAL_COMMA)
    return bool(commas.any() and (commas | given.str.contains(_WHOLE)).all())


def from_decimal_commas(column: pl.Expr) -> pl.Expr:
    """Texts with decimal commas as Float64; null where they are none."""
    plain = (
        column.str.strip_chars().str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    )
    return plain.cast(pl.Float64, strict=False)


def _is_comparable(values: pl.Series) -> bool:
    if values.null_count() == len(values) or type_of_field(values.dtype) is None:
        return False
    if values.dtype == pl.String:
        return int(values.str.len_chars().sum()) <= LONG_TEXT * values.count()
    return True
