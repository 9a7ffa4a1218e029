"""Columns of every type become fields that all who read fields can read, or are left out by name."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest

from rqrec.data.expressions import matching
from rqrec.data.fields import Fields, kept_fields
from rqrec.data.new_fields import as_fields, field_types
from rqrec.serving.facets import Facets
from rqrec.serving.search_index import SearchIndex

NOON = datetime(2024, 2, 29, 12)
# A type, two values of items in it, and what a catalogue keeps of them.
KEPT: list[tuple[Any, list[Any], list[Any]]] = [
    (pl.String, ["a", "b"], ["a", "b"]),
    (pl.Categorical, ["a", "b"], ["a", "b"]),
    (pl.Enum(["a", "b"]), ["a", "b"], ["a", "b"]),
    (pl.Boolean, [True, False], [True, False]),
    (pl.Int8, [1, -1], [1, -1]),
    (pl.UInt64, [1, 2], [1.0, 2.0]),
    (pl.Float32, [9.99, None], [9.99, None]),
    (pl.Decimal(8, 2), [Decimal("1.25"), None], [1.25, None]),
    (pl.Date, [date(2024, 2, 29), None], [date(2024, 2, 29), None]),
    (pl.Time, [time(5, 1), None], [time(5, 1), None]),
    (pl.Datetime("ns"), [NOON, None], [NOON, None]),
    (pl.Datetime("ms", "Europe/Berlin"), [NOON.replace(tzinfo=UTC), None], [NOON, None]),
    (pl.List(pl.String), [["a", "b"], ["b"]], [["a", "b"], ["b"]]),
    (pl.List(pl.Int16), [[1, 2], [2]], [[1, 2], [2]]),
    (pl.List(pl.Float32), [[0.1], [0.1]], [[0.1], [0.1]]),
    (pl.List(pl.Decimal(8, 2)), [[Decimal("1.25")], []], [[1.25], []]),
    (pl.List(pl.Boolean), [[True], [True, False]], [[True], [True, False]]),
    (pl.List(pl.Date), [[date(2024, 2, 29)], None], [[date(2024, 2, 29)], None]),
    (
        pl.List(pl.List(pl.String)),
        [[["Books", "Fiction"], ["Gifts"]], None],
        [["Books", "Fiction", "Gifts"], None],
    ),
    (pl.Array(pl.Float64, 2), [[1.5, 2.0], [2.0, 1.5]], [[1.5, 2.0], [2.0, 1.5]]),
]
LEFT_OUT: list[tuple[Any, list[Any]]] = [
    (pl.Duration, [timedelta(hours=1), None]),
    (pl.List(pl.Duration), [[timedelta(hours=1)], None]),
    (pl.Struct({"a": pl.Int64}), [{"a": 1}, None]),
    (pl.Binary, [b"a", None]),
    (pl.List(pl.Binary), [[b"a"], None]),
]


def catalogue(values: list[Any], dtype: Any) -> pl.DataFrame:
    items = pl.DataFrame({"item_id": ["1", "2"], "title": ["One", "Two"], "text": ["", ""]})
    return items.with_columns(pl.Series("field", values, dtype))


def read_by_all(items: pl.DataFrame) -> list[str]:
    """Let all that read fields read those of a catalogue; the expressions of its facets."""
    facets, fields = Facets.of(items), Fields(items)
    shown = [facet for own in facets.of_items(np.arange(len(items))) for facet in own] + facets.all
    for facet in shown:
        assert matching(facet.where, fields).any(), facet
    for name in fields.names:
        fields.groups(name)
        fields.values(name)
    SearchIndex().view(items, np.ones(len(items), dtype=bool))
    return [facet.where for facet in shown]


@pytest.mark.parametrize(("dtype", "given", "kept"), KEPT, ids=lambda value: str(value)[:30])
def test_a_column_of_any_readable_type_is_a_field(dtype: Any, given: list[Any], kept: list[Any]) -> None:
    fields, notes = kept_fields(catalogue(given, dtype), {"item_id", "title", "text"})
    assert fields["field"].to_list() == kept
    assert notes == ["rules can use the fields field"]
    items = catalogue(kept, fields["field"].dtype)
    read_by_all(items)
    again = as_fields(["1", "2"], {"field": given}, field_types(items))
    assert again["field"].to_list() == kept


@pytest.mark.parametrize(("dtype", "given"), LEFT_OUT, ids=lambda value: str(value)[:30])
def test_a_column_of_another_type_is_left_out_by_name(dtype: Any, given: list[Any]) -> None:
    items = catalogue(given, dtype)
    fields, (note,) = kept_fields(items, {"item_id", "title", "text"})
    assert (fields.width, note.startswith("it keeps no field field")) == (0, True)
    read_by_all(items)  # of a catalogue that was made before
    assert Fields(items).names == ["item_id", "title"]
    assert field_types(items) == {}


@pytest.mark.parametrize("dtype", [dtype for dtype, *_ in KEPT], ids=str)
def test_a_catalogue_of_an_earlier_version_is_read_as_it_is(dtype: Any) -> None:
    given = next(given for one, given, _ in KEPT if one is dtype)
    items = catalogue(given, dtype)
    read_by_all(items)
    assert field_types(items) == {"field": dtype}


def test_a_number_next_to_infinity_has_a_facet_that_can_be_asked_for() -> None:
    items = pl.DataFrame({"item_id": list("abc"), "title": list("abc"), "text": [""] * 3})
    items = items.with_columns(price=pl.Series([1.0, 1e308, float("inf")]))
    assert "`price` = 1e+308" in read_by_all(items)
