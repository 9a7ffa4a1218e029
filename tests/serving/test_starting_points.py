from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.sparse.linalg import svds
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer

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


def test_a_rare_aspect_of_other_kinds_is_none_of_its_own() -> None:
    genres = [[KINDS[n // 20]] for n in range(80)]
    in_3d = [
        n for n in range(60) if n % 20 > 16
    ]  # the best-known items of all three kinds, which have a code of their own
    codes = CODES.copy()
    for n in in_3d:
        genres[n], codes[n] = ["3D", *genres[n], "Thrilling"], 4
    items = pl.DataFrame({"item_id": list(map(str, range(80))), "genres": genres})
    items = items.with_columns(title="item_id", text="item_id")
    everything = np.ones(80, dtype=bool)
    found = starting_points(Facets.of(items), TextIndex.of(items["text"]), codes, 1 + FAME, everything)
    assert {point.label for point in found} <= set(KINDS)
    chosen = [item for point in found for item in point.items]
    assert len(found) == COUNT
    assert len(chosen) == len(set(chosen)) == COUNT * ITEMS


@pytest.mark.parametrize("seed", range(3))
def test_starting_points_of_movielens_are_genres_that_differ(seed: int, shared_data: Path) -> None:
    folder = shared_data / "ml-latest-small"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing.")
    films = pl.read_csv(folder / "movies.csv").rename({"movieId": "item_id"}).cast({"item_id": pl.String})
    films = films.with_columns(
        text=pl.col("title") + " " + pl.col("genres").str.replace_all("|", " ", literal=True)
    )
    taken = pl.read_csv(folder / "ratings.csv")["movieId"].cast(pl.String).value_counts(name="fame")
    fame_N = (
        films.join(taken, left_on="item_id", right_on="movieId", how="left")["fame"].fill_null(0).to_numpy()
    )
    words_NW = TfidfVectorizer(min_df=2).fit_transform(films["text"])
    u_ND, s_D, _ = svds(words_NW, k=64, random_state=0)
    codes_N = KMeans(32, n_init=1, random_state=seed, max_iter=20).fit_predict(u_ND * s_D)
    facets = Facets.of(films)
    found = starting_points(
        facets, TextIndex.of(films["text"]), codes_N, fame_N, np.ones(len(films), dtype=bool)
    )
    labels = [point.label for point in found]
    assert len(labels) == COUNT
    assert labels[0] == "Sci-Fi"
    assert not {"IMAX", "(no genres listed)"} & set(labels)
    for point in found:
        assert fame_N[list(point.items)].min() > 50, point


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
