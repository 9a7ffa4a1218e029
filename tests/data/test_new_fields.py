"""Values of fields of new items: typed as the catalogue's, or refused in a sentence."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from rqrec.data.new_fields import as_fields, field_types, known_fields

TYPES: dict[str, Any] = {
    "brand": pl.String(),
    "price": pl.Float64(),
    "year": pl.Int16(),
    "new": pl.Boolean(),
    "made": pl.Date(),
    "sold": pl.Datetime("us"),
    "genres": pl.List(pl.String()),
    "sizes": pl.List(pl.Int64()),
    "size": pl.Enum(["S", "L"]),
    "cost": pl.Decimal(8, 2),
    "seen": pl.Datetime("us", "UTC"),
    "opens": pl.Time(),
}


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("brand", "Acme", "Acme"),
        ("brand", 12, "12"),
        ("price", 3, 3.0),
        ("price", " 9.50 ", 9.5),
        ("price", "1.299,00", 1299.0),
        ("price", float("nan"), None),
        ("price", "n/a", None),
        ("year", "1999", 1999),
        ("year", 1999.0, 1999),
        ("new", "TRUE", True),
        ("new", False, False),
        ("made", "2024-02-29", date(2024, 2, 29)),
        ("sold", "2024-02-29T10:00:00", datetime(2024, 2, 29, 10)),
        ("sold", "2024-02-29", datetime(2024, 2, 29)),
        ("sold", "2024-02-29T10:00:00Z", datetime(2024, 2, 29, 10)),
        ("sold", "2024-02-29T10:00:00+05:00", datetime(2024, 2, 29, 5)),
        ("seen", "2024-02-29T10:00:00+05:00", datetime(2024, 2, 29, 5, tzinfo=UTC)),
        ("seen", "2024-02-29T10:00:00", datetime(2024, 2, 29, 10, tzinfo=UTC)),
        ("opens", "05:01", time(5, 1)),
        ("made", datetime(2024, 2, 29), date(2024, 2, 29)),
        ("genres", ["a", "b"], ["a", "b"]),
        ("genres", "a|b", ["a|b"]),
        ("genres", [["a", "b"], "c"], ["a", "b", "c"]),
        ("sizes", ["1", 2], [1, 2]),
        ("size", "L", "L"),
        ("cost", 9.99, Decimal("9.99")),
        *((name, None, None) for name in TYPES),
    ],
)
def test_a_value_gets_the_type_of_its_field(field: str, value: Any, kept: Any) -> None:
    found = as_fields(["a"], {field: [value]}, TYPES)
    assert found.schema == {field: TYPES[field]}
    assert found[field].to_list() == [kept]


@pytest.mark.parametrize(
    ("field", "value", "holds"),
    [
        ("price", "cheap", "numbers"),
        ("price", True, "numbers"),
        ("price", "inf", "numbers"),
        ("price", [1.0], "numbers"),
        ("year", 19.5, "whole numbers"),
        ("year", 40_000, "whole numbers"),
        ("year", "1e999999999", "whole numbers"),
        ("new", "perhaps", "true and false"),
        ("new", 2, "true and false"),
        ("made", "soon", "dates"),
        ("made", 5, "dates"),
        ("sold", "soon", "times"),
        ("sold", "2024-02-29T12:00:00.123456789Z", "times"),
        ("brand", ["a"], "text"),
        ("brand", {"a": 1}, "text"),
        ("genres", [{"a": 1}], "lists of text"),
        ("sizes", ["big"], "lists of whole numbers"),
        ("size", "M", "one of S, L"),
        ("cost", "1.255", "numbers"),
        ("cost", 1e-5, "numbers"),
        ("made", datetime(2024, 2, 29, 10), "dates"),
        ("opens", "05:01+02:00", "times of day"),
        ("opens", datetime(2024, 2, 29, 10), "times of day"),
    ],
)
def test_a_value_of_another_type_is_refused(field: str, value: Any, holds: str) -> None:
    with pytest.raises(
        ValueError, match=f"^Item 'b' has {field} .*, but {field} holds {holds}.* leave it out"
    ):
        as_fields(["a", "b"], {field: [None, value]}, TYPES)


def test_fields_are_what_a_catalogue_keeps_and_others_are_named() -> None:
    items = pl.DataFrame(
        {"item_id": ["a"], "title": ["A"], "text": [""], "embedding_row": [0], "price": [1.5]}
    )
    types = field_types(items)
    assert types == {"price": pl.Float64}
    table = pl.DataFrame({"id": ["b"], "name": ["B"], "price": ["2"], "shape": ["round"]})
    kept, notes = known_fields(table, {"id", "name"}, types)
    assert kept.columns == ["price"]
    assert notes == [
        "the catalogue has no field shape, so it is left out of the fields; its fields are price"
    ]
    with pytest.raises(
        ValueError, match="The catalogue has no field 'shape': leave it out; its fields are price"
    ):
        as_fields(["b"], {"shape": ["round"]}, types)
