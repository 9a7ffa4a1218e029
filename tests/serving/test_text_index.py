import numpy as np

from rqrec.serving.text_index import TextIndex

TITLES = ["Toy Story (1995)", "Amélie", "The Toy", "Story of a Toymaker's Toy Box", "", "Star Wars"]


def search(query: str) -> list[str]:
    return [TITLES[text] for text in TextIndex.of(TITLES).search(query).tolist()]


def test_every_query_word_is_a_prefix_of_a_title_word() -> None:
    assert set(search("to")) == {TITLES[0], TITLES[2], TITLES[3]}
    assert set(search("TOY sto")) == {TITLES[0], TITLES[3]}
    assert search("oy") == []
    assert search("toy amelie") == []


def test_exact_matches_come_first_then_short_titles() -> None:
    assert search("toy") == ["The Toy", TITLES[0], TITLES[3]]
    assert search("story toy") == [TITLES[0], TITLES[3]]


def test_accents_case_and_punctuation_are_ignored() -> None:
    assert search("amelie") == search("AMÉLIE") == search("Ame\u0301lie!") == ["Amélie"]
    assert search("?!") == []


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
    assert index.search("a").tolist() == []
    assert index.search("").tolist() == []
