"""MovieLens (F. M. Harper and J. A. Konstan, 2015): 100K, 1M, 32M and latest-small.

Item texts are "title (year), genres", such as "Toy Story (1995), Animation, Children's, Comedy". Every rating
counts as an interaction, whatever its value.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from rqrec.data.catalog import Catalog
from rqrec.data.download import extract, fetch, fetch_wheel
from rqrec.data.interactions import Interactions
from rqrec.data.tables import open_table, parse_errors_for

log = logging.getLogger(__name__)

HOST = "https://files.grouplens.org/datasets/movielens"
TEMPLATE = "{title} ({year}), {genres}"


@dataclass(frozen=True)
class Variant:
    """A published MovieLens dataset: its archive, the files to read, and its counts if they are fixed."""

    archive: str
    known_hash: str | None
    movies: str
    ratings: str
    counts: tuple[int, int, int] | None  # users, movies, ratings


VARIANTS = {
    "100k": Variant(
        "ml-100k.zip", "md5:0e33842e24a9c977be4e0107933c0723", "u.item", "u.data", (943, 1682, 100_000)
    ),
    "1m": Variant(
        "ml-1m.zip",
        "md5:c4d9eecfca2ab87c1945afe126590906",
        "movies.dat",
        "ratings.dat",
        (6040, 3883, 1_000_209),
    ),
    "32m": Variant(
        "ml-32m.zip",
        "md5:d472be332d4daa821edc399621853b57",
        "movies.csv",
        "ratings.csv",
        (200_948, 87_585, 32_000_204),
    ),
    "latest-small": Variant("ml-latest-small.zip", None, "movies.csv", "ratings.csv", None),
}

# This wheel contains MovieLens 100K, for machines that can reach only a package index.
WHEEL = ("recbole", "1.2.1", "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407")
WHEEL_MOVIES = "ml-100k.item"
WHEEL_RATINGS = "ml-100k.inter"

# The genres of the 19 flags at the end of each line of u.item, in order.
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
NO_GENRE = {"unknown", "(no genres listed)", ""}
SCHEMA: dict[str, Any] = {
    **{"item_id": pl.String, "title": pl.String, "text": pl.String},
    **{"genres": pl.List(pl.String), "year": pl.Int32},
}
_YEAR = re.compile(r"\((\d{4})\)$")


class Files(NamedTuple):
    """The two raw files of a variant."""

    movies: Path
    ratings: Path


def _variant(name: str) -> Variant:
    if name not in VARIANTS:
        raise ValueError(f"Unknown MovieLens variant {name!r}; allowed are {', '.join(VARIANTS)}.")
    return VARIANTS[name]


def find_movielens(variant: str, raw_folder: Path) -> Files | None:
    """The raw files in `raw_folder` or `raw_folder/ml-<variant>`; None if missing."""
    chosen = _variant(variant)
    names = [(chosen.movies, chosen.ratings)]
    if variant == "100k":
        names.append((WHEEL_MOVIES, WHEEL_RATINGS))
    for folder in (Path(raw_folder), Path(raw_folder) / f"ml-{variant}"):
        for movies, ratings in names:
            if (folder / movies).is_file() and (folder / ratings).is_file():
                return Files(folder / movies, folder / ratings)
    return None


def fetch_movielens(variant: str, raw_folder: Path) -> Files:
    """The raw files of a variant, downloaded into `raw_folder` if missing.

    If the official archive of MovieLens 100K cannot be downloaded, it is extracted from the recbole wheel.
    Raises ConnectionError if a download fails; the message says which file to put where.
    """
    if found := find_movielens(variant, raw_folder):
        return found
    chosen, raw_folder = _variant(variant), Path(raw_folder)
    target = raw_folder / f"ml-{variant}"
    try:
        archive = fetch(chosen.archive, raw_folder, [f"{HOST}/{chosen.archive}"], chosen.known_hash)
        return Files(*extract(archive, [chosen.movies, chosen.ratings], target))
    except ConnectionError as error:
        if variant != "100k":
            raise
        log.info("%s Trying the package index instead.", error)
        try:
            wheel = fetch_wheel(WHEEL[0], WHEEL[1], raw_folder, WHEEL[2])
        except ConnectionError as second:
            raise ConnectionError(f"{error} The package index failed as well: {second}") from second
    return Files(*extract(wheel, [WHEEL_MOVIES, WHEEL_RATINGS], target))


def load_movielens(variant: str, raw_folder: Path) -> tuple[Catalog, Interactions]:
    """All movies and all ratings of a variant: "100k", "1m", "32m" or "latest-small".

    Raw files missing from `raw_folder` are downloaded. Items and interactions are in the order of the files.
    Ratings of movies that are not in the movie file are dropped; this, and counts that differ from the published
    ones, are logged as warnings. Raises ValueError if a file is damaged, ConnectionError if a download fails.
    """
    files = fetch_movielens(variant, raw_folder)
    catalog, interactions = read_movielens(files)
    kept = interactions.of_items(catalog.id_map)
    if dropped := len(interactions) - len(kept):
        log.warning("Dropped %d ratings of movies that are not in %s.", dropped, files.movies)
    expected = _variant(variant).counts
    counts = (interactions.log["user_id"].n_unique(), len(catalog), len(interactions))
    if expected and counts != expected:
        log.warning(
            "%s has %d users, %d movies and %d ratings; the published MovieLens %s has %d, %d and %d.",
            files.ratings.parent, *counts, variant, *expected,
        )  # fmt: skip
    return catalog, kept


def read_movielens(files: Files) -> tuple[Catalog, Interactions]:
    """Read raw files of any of the published layouts."""
    with _named(files.movies):
        catalog = _catalog(_read_movies(files.movies))
    with _named(files.ratings):
        return catalog, Interactions(_read_ratings(files.ratings))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in a ValueError that does not."""
    try:
        yield
    except ValueError as error:
        raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from error


def _catalog(movies: Iterable[tuple[str, str, list[str]]]) -> Catalog:
    """Build a catalogue from rows of (id, title with year, genres)."""
    rows = []
    for movie_id, title, genres in movies:
        named = [genre for genre in genres if genre not in NO_GENRE]
        year = _YEAR.search(title)
        text = ", ".join([*([title] if title else []), *named])
        rows.append((movie_id, title, text, named, int(year[1]) if year else None))
    return Catalog(pl.DataFrame(rows, schema=SCHEMA, orient="row"))


def _clean_title(title: str) -> str:
    """Collapse white space, and remove the mark "(V)" (made for video) after the year."""
    title = " ".join(title.split())
    return re.sub(r"(\(\d{4}\)) \(V\)$", r"\1", title)


def _lines(path: Path, encoding: str) -> list[str]:
    with parse_errors_for(path):
        return [line for line in path.read_text(encoding=encoding).split("\n") if line.strip()]


def _fields(path: Path, line: str, separator: str, count: int) -> list[str]:
    fields = line.rstrip("\r").split(separator)
    if len(fields) != count:
        raise ValueError(f"{path} has a line of {len(fields)} fields, not {count}: {line!r}.")
    return fields


def _read_movies(path: Path) -> list[tuple[str, str, list[str]]]:
    """(id, title, genres) of each movie, from u.item, movies.dat, movies.csv or recbole's ml-100k.item."""
    movies = []
    if path.name == "u.item":
        for line in _lines(path, "latin-1"):
            fields = _fields(path, line, "|", 5 + len(GENRES_100K))
            genres = [genre for genre, flag in zip(GENRES_100K, fields[5:], strict=True) if flag == "1"]
            movies.append((fields[0], _clean_title(fields[1]), genres))
    elif path.name == "movies.dat":
        for line in _lines(path, "latin-1"):
            movie_id, title, genres_field = _fields(path, line, "::", 3)
            movies.append((movie_id, _clean_title(title), genres_field.split("|")))
    elif path.name == WHEEL_MOVIES:
        for line in _lines(path, "utf-8")[1:]:
            movie_id, name, year, genres_field = _fields(path, line, "\t", 4)
            movies.append((movie_id, _title_of_wheel(name, year), genres_field.split(" ")))
    else:
        table = open_table(path)
        table.say()
        for movie_id, title, genres_field in table.collect("movieId", "title", "genres").iter_rows():
            movies.append((movie_id, _clean_title(title or ""), (genres_field or "").split("|")))
    return movies


def _title_of_wheel(name: str, year: str) -> str:
    """Reconstruct the official title: the wheel's copy removes the year, with two errors (267 and 1412)."""
    if name == "unkonwn":
        return "unknown"
    return _clean_title(f"{name} ({year})")


def _read_ratings(path: Path) -> pl.DataFrame:
    """`user_id`, `item_id`, `timestamp` (seconds since 1970) of each rating, in the order of the file."""
    columns = {"userId": "user_id", "movieId": "item_id", "timestamp": "timestamp"}
    if path.name == "ratings.csv":
        table = open_table(path).frame.rename(columns, strict=False)
    elif path.name == "ratings.dat":  # polars allows only one-byte separators, so "::" is two
        names = ["user_id", "", "item_id", "", "rating", "", "timestamp"]
        table = _scan_plain(path, ":", [name or f"gap_{i}" for i, name in enumerate(names)])
    elif path.name == WHEEL_RATINGS:
        table = _scan_plain(path, "\t", ["user_id", "item_id", "rating", "timestamp"], skip=1)
    else:
        table = _scan_plain(path, "\t", ["user_id", "item_id", "rating", "timestamp"])
    with parse_errors_for(path):
        return table.select("user_id", "item_id", pl.col("timestamp").cast(pl.Int64)).collect()


def _scan_plain(path: Path, separator: str, names: list[str], skip: int = 0) -> pl.LazyFrame:
    return pl.scan_csv(
        path,
        separator=separator,
        has_header=False,
        skip_rows=skip,
        glob=False,
        schema=dict.fromkeys(names, pl.String),
        quote_char=None,
    )
