from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rqrec.serving.search_index import CatalogSearch, SearchIndex

ITEMS = pl.DataFrame(
    {
        "item_id": ["a1", "a2", "a3", "a4", "a5", "a6"],
        "title": [
            "Toy Story (1995)",
            "Amélie",
            "The Empire Strikes Back",
            "Matrix, The",
            "Star Wars",
            "Star Wars: Clones",
        ],
        "text": ["Toy Story, Animation", "", "Space war", "Matrix", None, "Space war"],
        "genres": [["Animation"], ["Romance"], ["Science Fiction", "War"], ["Science Fiction"], [], None],
        "price": [9.99, None, 12.5, 7.0, 3.0, 4.0],
        "embedding_row": [3001, 3002, 3003, 3004, 3005, 3006],
    }
)


def view(index: SearchIndex, items: pl.DataFrame = ITEMS, gone: tuple[int, ...] = ()) -> CatalogSearch:
    available = np.ones(len(items), dtype=bool)
    available[list(gone)] = False
    return index.view(items, available)


def found(query: str, search: CatalogSearch | None = None, k: int = 10) -> list[str]:
    items = (search or view(SearchIndex())).find(query, k).items
    return ITEMS["item_id"][items].to_list() if items.max(initial=0) < 6 else items.tolist()


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("empier strike", "a3"),
        ("matrx", "a4"),
        ("toy stroy", "a1"),
        ("amelie", "a2"),
        ("Ame\u0301lie!", "a2"),
        ("AMÉ", "a2"),
        ("a4", "a4"),
        ("romance", "a2"),
        ("sciense fiction war", "a3"),
        ("12.5", "a3"),
    ],
)
def test_all_fields_are_searched_and_typos_forgiven(query: str, first: str) -> None:
    assert found(query)[0] == first


def test_titles_of_nothing_but_pictures_are_found() -> None:
    titles = ["🌮🌮", "🍕", "Café ☕", "Lego™", None, "A"]
    search = view(SearchIndex(), ITEMS.with_columns(title=pl.Series(titles)))
    for query, first in (("🌮🌮", "a1"), ("🍕", "a2"), ("cafe ☕", "a3"), ("lego", "a4"), ("LEGO™", "a4")):
        assert found(query, search)[0] == first


def test_a_catalogue_may_have_no_more_than_ids_and_titles() -> None:
    assert found("wars", view(SearchIndex(), ITEMS.select("item_id", "title"))) == ["a5", "a6"]


def test_only_items_with_all_words_are_found_if_there_are_any() -> None:
    assert set(found("star wars")) == {"a5", "a6"}
    assert set(found("space war")) == {"a3", "a6"}
    assert found("toy zebra crossing") == []
    assert found("toy story zebra") == ["a1"]  # two of three
    assert found("zebra") == found("?!") == found("") == []


def test_numbers_have_no_typos_and_other_columns_are_not_searched() -> None:
    assert found("1996") == found("3001") == []
    assert found("1995") == ["a1"]


def test_better_matches_and_well_known_items_come_first() -> None:
    assert found("star wars")[0] == "a5"
    counts = np.array([0, 0, 0, 0, 0, 1_000_000])
    known = SearchIndex().view(ITEMS, np.ones(6, dtype=bool), counts)
    assert found("star wars", known) == ["a6", "a5"]


def test_the_film_that_most_people_mean_comes_first(shared_data: Path) -> None:
    films = pl.read_csv(shared_data / "ml-latest-small" / "movies.csv")
    counts = pl.read_csv(shared_data / "ml-latest-small" / "ratings.csv").group_by("movieId").len()
    films = films.join(counts, on="movieId", how="left", maintain_order="left")
    items = films.select(pl.col("movieId").cast(pl.String).alias("item_id"), "title", text="genres")
    search = SearchIndex().view(
        items, np.ones(len(items), dtype=bool), films["len"].fill_null(0).cast(pl.Int64).to_numpy()
    )
    for query, words in (
        ("star wars", "Episode IV"),
        ("alien", "Alien (1979)"),
        ("toy story", "Story (1995)"),
    ):
        assert words in items["title"][int(search.find(query, 1).items[0])]
    trilogy = items["title"][search.find("lord of the rings", 3).items.tolist()]
    assert trilogy.str.contains("Two Towers|Fellowship|Return of the King").all()


def test_pages_join_to_the_whole_list() -> None:
    search = view(SearchIndex())
    whole = search.find("a", 10)
    assert whole.total == len(whole.items) >= 3
    pages = [search.find("a", 2, start).items.tolist() for start in range(0, whole.total, 2)]
    assert [item for page in pages for item in page] == whole.items.tolist()
    assert search.find("a", 2, 100).items.tolist() == []


def test_an_index_follows_the_catalogue_and_earlier_views_stay() -> None:
    index = SearchIndex()
    before = view(index)
    more = pl.concat([ITEMS, pl.DataFrame({"item_id": ["n"], "title": ["Zebra"]})], how="diagonal")
    more = more.with_columns(title=pl.col("title").replace("Amélie", "Emily"))
    after = view(index, more, gone=(4,))
    assert after.find("zebra", 5).items.tolist() == [6]
    assert found("emily", after) == ["a2"]
    assert found("amelie", after) == []
    assert found("star wars", after) == ["a6"]
    assert found("zebra", before) == []
    assert set(found("star wars", before)) == {"a5", "a6"}
    again = view(index)
    assert found("zebra", again) == []
    assert set(found("star wars", again)) == {"a5", "a6"}
    new = view(SearchIndex())
    for query in ("star wars", "amelie", "space", "a1"):
        assert set(found(query, again)) == set(found(query, new))
