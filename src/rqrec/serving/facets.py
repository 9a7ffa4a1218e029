"""Facets: what items have in common by their fields, such as a genre, a brand, or a price of about so much.

Shapes: N items of the catalogue, V values of all fields, M items of a set.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array

from rqrec.data.fields import OWN_COLUMNS, Fields, FieldValues

REPEATED = 2.0  # of how many items a field's values are on average, at least
MAX_LENGTH = 60  # characters of a value that is shown
NEAR = 0.05  # of all items are near a number on one side of it, and those that are as far on the other
MAX_OF_ITEM = 8
LARGEST_SHOWN = 1e16  # of whole numbers without an exponent


class Facet(NamedTuple):
    """A value of a field."""

    field: str
    value: str
    """As it is shown: "Comedy"; a number with its field, as in "year 1995"; of truth, the field's name."""
    where: str
    """The expression that is true of all items that share it; of numbers, of those near it."""
    label: str
    """What the expression means, in words: "Comedy", "year 1994 to 1996"."""


@dataclass(frozen=True)
class Facets:
    """The facets of a catalogue: which fields have values that items share, and the sorted numbers of the others."""

    items: pl.DataFrame
    values: tuple[str, ...]
    numbers: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, items: pl.DataFrame) -> "Facets":
        """Find the fields that are facets: numbers, truth values, and texts and lists whose values repeat."""
        fields, values, numbers = Fields(items), [], {}
        for name in fields.names:
            dtype = items[name].dtype
            if name in OWN_COLUMNS or dtype.is_temporal() or "`" in name:
                continue
            if dtype.is_numeric():
                numbers[name] = np.sort(fields.written(name).values.to_numpy())
            elif dtype == pl.Boolean or _repeats(fields.written(name)):
                values.append(name)
        return cls(items, tuple(values), numbers)

    def changed(self, items: pl.DataFrame) -> "Facets":
        """The same fields of a changed catalogue."""
        return Facets(items, self.values, self.numbers)

    def of_items(self, items: NDArray[np.int64]) -> list[list[Facet]]:
        """The facets of each of some items."""
        found: list[list[Facet]] = [[] for _ in items]
        fields = Fields(self.items[items])
        for name in (*self.values, *self.numbers):
            rows, values = fields.written(name)
            for row, value in zip(rows.tolist(), values.to_list(), strict=True):
                facet = self._number(name, value) if name in self.numbers else _value(name, value)
                if facet is not None and len(found[row]) < MAX_OF_ITEM:
                    found[row].append(facet)
        return found

    def typical(self, items: NDArray[np.int64], count: int) -> list[Facet]:
        """Up to `count` values that distinguish some items from the rest, most typical first.

        Ranked by n log(lift): n of the items have the value, and lift is their share over that of all items; a
        single item makes none typical.
        """
        if not len(items):
            return []
        counts_V = self.has_NV[items].sum(axis=0)
        lift_V = counts_V / len(items) / np.maximum(self._counts, 1) * len(self.items)
        weights_V = counts_V * np.log(np.maximum(lift_V, 1)) * (counts_V > 1)
        best = np.argsort(-weights_V, kind="stable")[:count]
        return [self.all[value] for value in best.tolist() if weights_V[value] > 1e-9]

    @property
    def has_NV(self) -> csr_array:  # noqa: N802
        """Which item has which of the values that are no numbers; bool."""
        return self._values[0]

    @property
    def all(self) -> list[Facet]:
        """The V values that are no numbers."""
        return self._values[1]

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        """The number of items that have each of these values."""
        return self.has_NV.sum(axis=0)

    @cached_property
    def _values(self) -> tuple[csr_array, list[Facet]]:
        facets, rows, columns = list[Facet](), [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        fields = Fields(self.items)
        for name in self.values:
            items_M, values = fields.written(name)
            distinct = values.unique(maintain_order=True)
            known = [_value(name, value) for value in distinct]
            numbers = {
                value: len(facets) + i
                for i, value in enumerate(value for value, one in zip(distinct, known, strict=True) if one)
            }
            facets += filter(None, known)
            numbers_M = values.replace_strict(numbers, default=None, return_dtype=pl.Int64)
            kept_M = numbers_M.is_not_null().to_numpy()
            rows.append(items_M[kept_M])
            columns.append(numbers_M.drop_nulls().to_numpy())
        cells = np.concatenate(rows), np.concatenate(columns)
        shape = len(self.items), len(facets)
        return csr_array((np.ones(len(cells[0]), dtype=bool), cells), shape=shape), facets

    def _number(self, name: str, number: float) -> Facet | None:
        """A number, and those of the items around it; None for an infinite one."""
        if not math.isfinite(number):
            return None
        all_N = self.numbers[name]
        at, margin = int(np.searchsorted(all_N, number)), int(NEAR * len(all_N))
        edges = all_N[max(0, at - margin)], all_N[min(len(all_N) - 1, at + margin)]
        width = min((abs(edge - number) for edge in edges if edge != number), default=0.0)
        if not math.isfinite(number + width):
            width = 0.0
        low, high = number - width, number + width
        where = f"`{name}` = {_exact(number)}"
        label = f"{name} {_shown(number)}"
        if low < high:
            where = f"`{name}` >= {_exact(low)} and `{name}` <= {_exact(high)}"
            label = f"{name} {_shown(low)} to {_shown(high)}"
        return Facet(name, f"{name} {_shown(number)}", where, label)


def _value(name: str, value: str | bool | float) -> Facet | None:
    """A value that is no number, or one of a list of them; None if nothing is to be shown of it."""
    if isinstance(value, bool):
        return Facet(name, name, f"`{name}` = true", name) if value else None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        shown = f"{name} {_shown(value)}"
        return Facet(name, shown, f"`{name}` = {_exact(value)}", shown)
    quote = next((quote for quote in "'\"" if quote not in value), None)
    if quote is None or not 0 < len(value) <= MAX_LENGTH:
        return None
    return Facet(name, value, f"`{name}` = {quote}{value}{quote}", value)


def _shown(number: float) -> str:
    """A number as people write it, with at most ten digits after those of a whole number."""
    return str(int(number)) if number.is_integer() and abs(number) < LARGEST_SHOWN else f"{number:.10g}"


def _exact(number: float) -> str:
    """A number as it is, for an expression."""
    return shown if float(shown := _shown(number)) == number else repr(number)


def _repeats(written: FieldValues) -> bool:
    """Whether most values are of several items."""
    return len(written.values) >= REPEATED * written.values.n_unique() > 0
