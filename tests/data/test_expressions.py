"""Expressions about fields, on items whose answer is plain."""

import operator
from contextlib import suppress
from datetime import date, datetime, time
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.data.expressions import ExpressionError, matching
from rqrec.data.fields import Fields

ITEMS = pl.DataFrame(
    {
        "item_id": ["1", "2", "3", "4"],
        "title": ["Monsters, Inc.", "Blade Runner", "Up", ""],
        "text": ["a", "b", "c", "d"],
        "genre": ["Comedy|Children's", "Science Fiction; Drama", "comedy, drama", None],
        "price": ["$3.50", "20", "n/a", None],
        "year": [2001, 1982, 2009, None],
        "tags": [["New", "x"], ["y"], [], None],
        "in stock": [True, False, True, None],
        "released": [date(2001, 11, 2), date(1982, 6, 25), date(2009, 5, 29), None],
        "shown": [
            datetime(2024, 2, 29, 12, 0, 30, 500000),
            datetime(2024, 2, 29, 23),
            datetime(2024, 3, 1),
            None,
        ],
        "opens": [time(5, 1, 7), time(23, 59, 59), None, None],
        "days": [[date(2024, 2, 29)], [date(2024, 2, 1), date(2024, 3, 1)], [], None],
    }
)
FIELDS = "item_id, title, genre, price, year, tags, in stock, released, shown, opens, days"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("genre = comedy", [1, 3]),
        ("genre = COMEDY and price < 20", [1]),
        ("genre = children's", [1]),
        ("genre = science fiction", [2]),
        ("genre in (drama, 'children\"s', children's)", [1, 2, 3]),
        ("genre != comedy", [2, 4]),
        ("genre not in (comedy, drama)", [4]),
        ("not genre = comedy or year >= 2009", [2, 3, 4]),
        ("not (genre = comedy or year >= 2009)", [2, 4]),
        ("year < 2000 or year > 2005 and genre = drama", [2, 3]),
        ("(year < 2000 or year > 2005) and genre = comedy", [3]),
        ("price >= 3.5", [1, 2]),
        ("price = 3.5", [1]),
        ("price <= 1e1", [1]),
        ("year in (1982, 2009.0)", [2, 3]),
        ("year == 2001", [1]),
        ("year = '2001'", [1]),
        ("price < '4'", [1]),
        ("title = 'Monsters, Inc.'", [1]),
        ("title = up", [3]),
        ("title != up", [1, 2, 4]),
        ("item_id = 2", [2]),
        ('item_id in ("1", "4")', [1, 4]),
        ("TAGS = new", [1]),
        ("tags != y", [1, 3, 4]),
        ("in stock = true", []),
        ("`in stock` = true", [1, 3]),
        ("`in stock` != true", [2, 4]),
        ("released > 2001-01-01", [1, 3]),
        ("released = 1982-06-25", [2]),
        ("released = 1982", [2]),
        ("released in (1982, 2001-11)", [1, 2]),
        ("released != 1982-06", [1, 3, 4]),
        ("released > 2001", [3]),
        ("released >= 2001", [1, 3]),
        ("released < 2001-11-02", [2]),
        ("released <= 2001-11", [1, 2]),
        ("shown = 2024-02-29", [1, 2]),
        ("shown = '2024-02-29 12:00'", [1]),
        ("shown = 2024-02-29T12:00:30.5", [1]),
        ("shown = 2024-02-29T12:00:30.51", []),
        ("shown >= 2024-02-29T12:01", [2, 3]),
        ("shown >= 2024-02-29 12:01", [2, 3]),
        ("shown > 2024-02-29", [3]),
        ("shown < 2024-03-01T01:00:00+02:00", [1]),
        ("shown <= 2024-03-01T00:00:00Z", [1, 2, 3]),
        ("opens = 05:01", [1]),
        ("opens < 05:01:30", [1]),
        ("days = 2024-02", [1, 2]),
        ("days > 2024-02", [2]),
        ("title > m and title < v", [1, 3]),
    ],
)
def test_an_expression_is_true_of_the_items_with_such_a_value(expression: str, expected: list[int]) -> None:
    if expression == "in stock = true":  # a word of the language within a name needs quotes
        with pytest.raises(ExpressionError, match="has 'in' where a field is expected"):
            matching(expression, Fields(ITEMS))
        return
    assert (np.flatnonzero(matching(expression, Fields(ITEMS))) + 1).tolist() == expected


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("", "it ends where a field is expected"),
        ("genres = comedy", "there is no field 'genres'"),
        ("text = a", "there is no field 'text'"),
        ("genre comedy", "it ends after 'genre comedy', where a comparison is expected"),
        ("genre = ", "it ends where a value is expected"),
        ("genre = comedy and", "it ends where a field is expected"),
        ("genre not = comedy", "it has '=' after 'genre', where a comparison is expected"),
        ("(year = 1", "it ends where a parenthesis should be closed"),
        ("year < 3)", "it has ')' where and, or, or its end is expected"),
        ("genre in comedy", "after in, values are expected in parentheses"),
        ("genre in (comedy", "it ends where the values of in (...) should end"),
        ("year = soon", "year holds numbers, and 'soon' is none"),
        ("price = '\ud800'", "it has '\\ud800', which is no character but half of one"),
        ("year < 1e999", "year holds numbers, and '1e999' is none"),
        (f"price < {'9' * 400}", "price holds numbers"),
        ("year < nan", "year holds numbers, and 'nan' is none"),
        ("year = 'inf'", "year holds numbers, and 'inf' is none"),
        ("price < nan", "price holds numbers, and 'nan' is none"),
        ("price >= cheap", "price holds numbers, and 'cheap' is none"),
        ("title < 3", "no title is a number, such as 3"),
        ("`in stock` = maybe", "in stock holds true and false, and 'maybe' is neither"),
        ("genre = 'comedy", '"\'comedy" is neither a word nor a sign'),
        ("released = abc", "released holds dates, such as 2024-12-31, 2024-12 or 2024, and 'abc' is none"),
        ("released > 06.01.2020", "and '06.01.2020' is none"),
        ("released > 2020-1-6", "and '2020-1-6' is none"),
        ("released = 2024-02-30", "and '2024-02-30' is none"),
        ("released >= 2024-01-01T10:00", "and '2024-01-01T10:00' is none"),
        ("shown > 0000", "shown holds times"),
        ("shown > '2024-01-01T00:00+99:99'", "shown holds times"),
        ("opens < 5:00", "opens holds times of day, such as 23:59 or 23:59:59, and '5:00' is none"),
        ("year ! 3", "'! 3' is neither a word nor a sign"),
        ("x" * 20_000, "it has 20000 characters, but 10000 are allowed"),
        ("(" * 60 + "year = 1" + ")" * 60, "more than 50 parentheses or nots are within each other"),
        ("not " * 60 + "year = 1", "more than 50 parentheses or nots are within each other"),
    ],
)
def test_a_wrong_expression_gets_one_sentence_that_lists_the_fields(expression: str, problem: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        matching(expression, Fields(ITEMS))
    message = str(raised.value)
    assert problem in message
    assert FIELDS in message
    assert "\n" not in message
    assert len(message) < 500


COMPARISONS: dict[str, Any] = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@st.composite
def expressions(draw: Any, depth: int = 3) -> tuple[str, Any]:
    """An expression of the field n, and the function of a number that it means."""
    kind = draw(st.sampled_from(["compare", "equal", "in", "and", "or", "not"] if depth else ["compare"]))
    number = draw(st.integers(-3, 3))
    if kind == "compare":
        sign = draw(st.sampled_from([*COMPARISONS]))
        return f"n {sign} {number}", lambda n: n is not None and COMPARISONS[sign](n, number)
    if kind == "equal":
        is_not = draw(st.booleans())
        return f"n {'!=' if is_not else '='} {number}", lambda n: (n == number) != is_not
    if kind == "in":
        numbers = draw(st.lists(st.integers(-3, 3), min_size=1, max_size=4))
        return f"n IN ({', '.join(map(str, numbers))})", lambda n: n in numbers
    text, means = draw(expressions(depth - 1))
    if kind == "not":
        return f"not ({text})", lambda n: not means(n)
    other_text, other_means = draw(expressions(depth - 1))
    if kind == "and":
        return f"({text}) and ({other_text})", lambda n: means(n) and other_means(n)
    return f"({text}) Or ({other_text})", lambda n: means(n) or other_means(n)


@settings(max_examples=100, deadline=None)
@given(expressions(), st.lists(st.none() | st.integers(-4, 4), min_size=1, max_size=9), st.booleans())
def test_it_means_what_the_same_comparisons_mean_in_python(
    expression: tuple[str, Any], values: list[int | None], as_text: bool
) -> None:
    text, means = expression
    column = pl.Series("n", values, dtype=pl.Int64)
    if as_text and column.null_count() < len(column):  # as a csv file has it
        column = column.cast(pl.String)
    got = matching(text, Fields(pl.DataFrame([column])))
    assert got.tolist() == [means(value) for value in values]


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ge()='\"`,<>! notandr1x"), max_size=30))
def test_any_text_is_an_expression_or_refused_in_a_sentence(text: str) -> None:
    with suppress(ExpressionError):
        assert matching(text, Fields(ITEMS)).shape == (4,)


def test_groups_are_the_values_of_a_field_and_the_parts_of_a_text() -> None:
    fields = Fields(ITEMS)
    first, second, third, fourth = fields.groups("genre").tolist()
    assert -1 not in first
    assert -1 not in second
    assert set(first).isdisjoint(second)
    assert (third[1], fourth) == (-1, [-1, -1])  # "comedy, drama" is one name
    assert fields.groups("year").shape == (4, 1)
    assert len(set(fields.groups("year").ravel().tolist())) == 4
    assert fields.groups("tags")[2:].max() == -1
