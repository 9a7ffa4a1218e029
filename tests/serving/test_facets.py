import numpy as np
import polars as pl
import pytest

from rqrec.data.expressions import matching
from rqrec.data.fields import Fields
from rqrec.serving.facets import Facets

ITEMS = pl.DataFrame(
    {
        "item_id": [f"i{n}" for n in range(8)],
        "title": [f"Film {n}" for n in range(8)],
        "text": [f"Film {n}" for n in range(8)],
        "genres": [["Drama"], ["Drama", "Children's"], ["Children's"], ["Drama"], [], None, ["War"], ["War"]],
        "brand": ["Hasbro, Inc.", "Hasbro, Inc.", "Acme", "Acme", "Acme", "n/a", None, "Acme"],
        "tags": ["a|b", "a", "b|a", "a|b", "b", "a", "a", "b"],
        "in stock": [True, False, None, True, True, True, True, True],
        "year": [1990, 1991, 1992, 1993, 1994, 1995, None, 2020],
        "link": [f"https://a.example/{n}" for n in range(8)],
        "odd`name": ["x"] * 8,
    }
)


def test_facets_are_the_values_that_items_share_as_they_are_written() -> None:
    facets = Facets.of(ITEMS)
    assert facets.values == ("genres", "brand", "tags", "in stock")
    assert list(facets.numbers) == ["year"]
    second, seventh = facets.of_items(np.array([1, 6]))
    assert [facet.value for facet in second] == ["Drama", "Children's", "Hasbro, Inc.", "a", "year 1991"]
    assert [facet.value for facet in seventh] == ["War", "a", "in stock"]


def test_the_expression_of_a_facet_is_true_of_the_items_that_have_it() -> None:
    facets, fields = Facets.of(ITEMS), Fields(ITEMS)
    for item, own in enumerate(facets.of_items(np.arange(8))):
        for facet in own:
            assert matching(facet.where, fields)[item]
    numbers = {facet.label for own in facets.of_items(np.arange(8)) for facet in own if facet.field == "year"}
    assert "year 1990" not in numbers or len(numbers) > 1
    has_NV = facets.has_NV.toarray()
    for column, facet in enumerate(facets.all):
        assert has_NV[:, column].tolist() == matching(facet.where, fields).tolist()


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ([10 / 3, 10 / 3, 1 / 3], "price 3.333333333"),
        ([123456.789012345, 0.1, 0.2], "price 123456.789"),
        ([1700000000123.0, 1700000000456.0, 1.0], "price 1700000000123"),
        ([9007199254740991.0, 5.0, 7.0], "price 9007199254740991"),
        ([1e300, 1e299, -0.0], "price 1e+300"),
    ],
)
def test_the_expression_of_a_number_is_true_of_it(numbers: list[float], shown: str) -> None:
    items = ITEMS.select("item_id", "title", "text").head(3).with_columns(price=pl.Series(numbers))
    facets, fields = Facets.of(items), Fields(items)
    for item, (facet,) in enumerate(facets.of_items(np.arange(3))):
        assert matching(facet.where, fields)[item], facet
        assert item > 0 or facet.value == shown


def test_typical_values_distinguish_items_from_the_rest() -> None:
    facets = Facets.of(ITEMS)
    assert [facet.label for facet in facets.typical(np.array([6, 7]), 1)] == ["War"]
    assert facets.typical(np.array([0]), 3) == []
    assert facets.typical(np.array([], dtype=np.int64), 3) == []
    assert Facets.of(ITEMS.select("item_id", "title", "text")).typical(np.arange(8), 3) == []


def test_a_changed_catalogue_has_the_same_fields() -> None:
    more = pl.concat([ITEMS, ITEMS.head(1).with_columns(brand=pl.lit("New"))])
    facets = Facets.of(ITEMS).changed(more)
    (new,) = facets.of_items(np.array([8]))
    assert [facet.value for facet in new] == ["Drama", "New", "a", "b", "in stock", "year 1990"]
