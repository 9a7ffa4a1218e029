import numpy as np
import polars as pl

from rqrec.serving.catalog_view import labels_of
from rqrec.serving.text_index import TextIndex


def test_typical_words_set_texts_apart_from_the_others() -> None:
    texts = ["film war drama"] * 9 + ["film love drama"] * 9 + ["film"] * 9
    index = TextIndex.of(texts)
    assert index.typical_words(np.arange(9), 5)[0] == "war"
    assert index.typical_words(np.arange(18), 5)[0] == "drama"
    assert "film" not in index.typical_words(np.arange(18), 5)
    assert index.typical_words(np.arange(27), 5) == []
    assert index.typical_words(np.array([], dtype=np.int64), 5) == []
    assert len(index.typical_words(np.arange(9), 1)) == 1


def test_years_stop_words_and_chance_are_not_typical() -> None:
    odd = "La vie est le roman of 1997"
    texts = [f"{odd} sci-fi children's x{number}" for number in range(20)] + ["thing"] * 200
    index = TextIndex.of(texts)
    assert set(index.typical_words(np.arange(20), 20)) == {"vie", "est", "roman", "sci-fi", "children's"}
    assert index.typical_words(np.array([0]), 5) == []  # one text is no evidence


def test_texts_without_words_can_be_indexed() -> None:
    index = TextIndex.of(["", "!"])
    assert len(index) == 2
    assert index.typical_words(np.array([0]), 5) == []


def test_a_changed_index_equals_a_new_one() -> None:
    texts = ["film war drama", "film love", "film war"]
    index = TextIndex.of(texts).changed(np.array([1, 3, 4]), ["Küche", "film war kitchen", ""])
    new = TextIndex.of(["film war drama", "Küche", "film war", "film war kitchen", ""])
    assert len(index) == len(new) == 5
    for items in ([0], [1], [2, 3], [4]):
        assert index.typical_words(np.array(items), 9) == new.typical_words(np.array(items), 9)


def test_names_of_fields_and_of_missing_values_are_no_typical_words() -> None:
    texts = ["Genre: Horror (no genres listed)"] * 9 + ["tale"] * 9
    index = TextIndex.of(texts)
    assert set(index.typical_words(np.arange(9), 9)) == {"genre", "genres", "horror", "listed"}
    items = pl.DataFrame({"item_id": ["a"], "text": ["b"], "genres": ["c"], "tale": [True]})
    labels = labels_of(items)
    assert index.typical_words(np.arange(9), 9, labels) == ["horror"]
    assert index.typical_words(np.arange(9, 18), 9, labels) == [
        "tale"
    ]  # a field of truth is what its items are
