import numpy as np
import polars as pl

from rqrec.serving.facets import Facets
from rqrec.serving.starting_points import COUNT, ITEMS, StartingPoint, starting_points
from rqrec.serving.text_index import TextIndex

KINDS = ["Horror", "Western", "Musical", "Drama"]
CODES = np.repeat(np.arange(4), 20)  # of four kinds, the last of which is spread over all codes
FAME = np.tile(np.arange(20.0), 4)


def points(genres: list[list[str]] | None, available: np.ndarray | None = None) -> list[StartingPoint]:
    texts = [f"{KINDS[n // 20].lower()} number {n}" for n in range(80)]
    items = pl.DataFrame({"item_id": list(map(str, range(80))), "title": texts, "text": texts})
    if genres is not None:
        items = items.with_columns(genres=pl.Series(genres))
    codes = CODES.copy()
    codes[60:] = np.arange(20) % 4
    everything = np.ones(80, dtype=bool) if available is None else available
    return starting_points(Facets.of(items), TextIndex.of(texts), codes, FAME, everything)


def test_kinds_are_values_that_the_codes_set_apart_with_their_best_known_items() -> None:
    found = points([[KINDS[n // 20]] for n in range(80)])
    assert {point.label for point in found} == {"Horror", "Western", "Musical"}
    for point in found:
        kind = KINDS.index(point.label)
        assert point.where == f"`genres` = '{point.label}'"
        assert point.items == tuple(20 * kind + n for n in (19, 18, 17, 16))


def test_items_of_several_kinds_and_removed_ones_are_no_good_examples() -> None:
    genres = [[KINDS[n // 20]] for n in range(80)]
    genres[19] = KINDS[:3]
    available = np.ones(80, dtype=bool)
    available[18] = False
    (horror,) = [point for point in points(genres, available) if point.label == "Horror"]
    assert not {18, 19} & set(horror.items)


def test_without_fields_kinds_are_codes_named_by_words() -> None:
    found = points(None)
    assert len(found) == COUNT
    assert all(len(point.items) == ITEMS and point.where is None for point in found)
    words = {word for point in found for word in point.label.split(", ")}
    assert words & {"horror", "western", "musical"}


def test_a_small_catalogue_has_no_kinds() -> None:
    items = pl.DataFrame({"item_id": ["a"], "title": ["A"], "text": ["A"]})
    index = TextIndex.of(["A"])
    assert starting_points(Facets.of(items), index, np.array([0]), np.ones(1), np.ones(1, dtype=bool)) == []
