from rqrec.serving.text_index import TextIndex

TITLES = ["Toy Story (1995)", "Amélie", "The Toy", "Story of a Toymaker's Toy Box", "", "Star Wars"]


def found(query: str) -> list[str]:
    return [TITLES[text] for text in TextIndex.of(TITLES).search(query).tolist()]


def test_every_word_of_a_query_starts_a_word_of_the_title() -> None:
    assert set(found("to")) == {TITLES[0], TITLES[2], TITLES[3]}
    assert set(found("TOY sto")) == {TITLES[0], TITLES[3]}
    assert found("oy") == []
    assert found("toy amelie") == []


def test_whole_words_come_first_then_short_titles() -> None:
    assert found("toy") == ["The Toy", TITLES[0], TITLES[3]]
    assert found("story toy") == [TITLES[0], TITLES[3]]


def test_accents_case_and_marks_do_not_matter() -> None:
    assert found("amelie") == found("AMÉLIE") == found("Ame\u0301lie!") == ["Amélie"]
    assert found("?!") == []


def test_typical_words_set_texts_apart_from_all() -> None:
    texts = ["film war drama", "film war", "film love drama", "film love", "film", "film"]
    index = TextIndex.of(texts)
    import numpy as np

    assert index.typical(np.array([0, 1]), 5)[0] == "war"
    assert "film" not in index.typical(np.array([0, 1, 2]), 5)
    assert index.typical(np.arange(6), 5) == []
    assert index.typical(np.array([], dtype=np.int64), 5) == []
    assert len(index.typical(np.array([0]), 1)) == 1


def test_a_catalogue_without_words_is_no_failure() -> None:
    index = TextIndex.of(["", "!"])
    assert index.search("a").tolist() == []
    assert index.search("").tolist() == []
