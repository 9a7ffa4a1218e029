import numpy as np

from rqrec.serving.text_index import TextIndex


def test_typical_words_distinguish_texts_from_the_rest() -> None:
    texts = ["film war drama", "film war", "film love drama", "film love", "film", "film"]
    index = TextIndex.of(texts)
    assert index.typical_words(np.array([0, 1]), 5)[0] == "war"
    assert "film" not in index.typical_words(np.array([0, 1, 2]), 5)
    assert index.typical_words(np.arange(6), 5) == []
    assert index.typical_words(np.array([], dtype=np.int64), 5) == []
    assert len(index.typical_words(np.array([0]), 1)) == 1


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
