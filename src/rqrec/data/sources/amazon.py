"""Amazon Reviews 2014 (J. McAuley et al., 2015), 5-core: Beauty, Sports and Outdoors, Toys and Games.

The sequences are those of P5 (S. Geng et al., arXiv 2203.13366), on which TIGER (arXiv 2305.05065) and most
later work evaluate. They are read from P5's archive, or reconstructed from the official reviews: users in the
order of the review file; the reviews of a user by day and, within a day, in the order of the file; items numbered
by first occurrence in these sequences.
"""

import ast
import gzip
import json
import logging
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rqrec.data.catalog import Catalog
from rqrec.data.download import drive_url, extract, fetch
from rqrec.data.interactions import Interactions
from rqrec.data.k_core import k_core
from rqrec.data.tables import parse_errors_for
from rqrec.data.templates import clean, fill
from rqrec.data.times import END

log = logging.getLogger(__name__)

TEMPLATE = "Title: {title}; Brand: {brand}; Categories: {categories}; Price: {price}"  # TIGER, section 4
ARCHIVE = "P5_data.zip"
ARCHIVE_ID = "1qGxgmx7G_WB7JE4Cn_bEcZ_o_NAJLE3G"  # on Google Drive
MIRRORS = (
    "https://mcauleylab.ucsd.edu/public_datasets/data/amazon/categoryFiles",
    "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles",
)
SEQUENCES, IDS, META = "sequential_data.txt", "datamaps.json", "meta.json.gz"
CORE = 5
SCHEMA: dict[str, Any] = {
    **{"item_id": pl.String, "title": pl.String, "text": pl.String},
    **{"price": pl.Float64, "brand": pl.String, "categories": pl.List(pl.String)},
}
LARGEST_PRICE = 1e9

_ASIN = re.compile(r"""['"]asin['"]: ['"](\w+)['"]""")


@dataclass(frozen=True)
class Category:
    """A product category: its name in the official files, and the counts of P5's sequences."""

    name: str
    counts: tuple[int, int, int]  # users, items, interactions


CATEGORIES = {
    "beauty": Category("Beauty", (22_363, 12_101, 198_502)),
    "sports": Category("Sports_and_Outdoors", (35_598, 18_357, 296_337)),
    "toys": Category("Toys_and_Games", (19_412, 11_924, 167_597)),
}


@dataclass(frozen=True)
class P5Files:
    """Raw files in P5's layout."""

    sequences: Path
    ids: Path
    meta: Path

    def paths(self) -> tuple[Path, ...]:
        """All files, in a fixed order."""
        return self.sequences, self.ids, self.meta


@dataclass(frozen=True)
class OfficialFiles:
    """Raw files in the official layout: 5-core reviews and metadata of a category."""

    reviews: Path
    meta: Path

    def paths(self) -> tuple[Path, ...]:
        """All files, in a fixed order."""
        return self.reviews, self.meta


Files = P5Files | OfficialFiles


def _category(name: str) -> Category:
    if name not in CATEGORIES:
        raise ValueError(f"Unknown Amazon category {name!r}; allowed are {', '.join(CATEGORIES)}.")
    return CATEGORIES[name]


def find_amazon(category: str, raw_folder: Path) -> Files | None:
    """The raw files in `raw_folder`, `raw_folder/category` or `raw_folder/raw/category`; None if missing."""
    name, raw_folder = _category(category).name, Path(raw_folder)
    folders = (raw_folder, raw_folder / category, raw_folder / "raw" / category)
    for folder in folders:
        p5 = P5Files(folder / SEQUENCES, folder / IDS, folder / META)
        if all(path.is_file() for path in p5.paths()):
            return p5
    for folder in folders:
        official = OfficialFiles(folder / f"reviews_{name}_5.json.gz", folder / f"meta_{name}.json.gz")
        if all(path.is_file() for path in official.paths()):
            return official
    return None


def fetch_amazon(category: str, raw_folder: Path) -> Files:
    """The raw files of a category, downloaded into `raw_folder` if missing.

    Tries P5's archive first, then the official reviews and metadata. Raises ConnectionError if both fail; the
    message says which files to put where.
    """
    if found := find_amazon(category, raw_folder):
        return found
    raw_folder = Path(raw_folder)
    target = raw_folder / "raw" / category
    try:
        urls = [] if (raw_folder / ARCHIVE).exists() else [drive_url(ARCHIVE_ID)]
        archive = fetch(ARCHIVE, raw_folder, urls)
        members = [f"{category}/{name}" for name in (SEQUENCES, IDS, META)]
        return P5Files(*extract(archive, members, target))
    except ConnectionError as error:
        log.warning("%s Trying the official reviews instead.", error)
    official = _category(category).name
    names = (f"reviews_{official}_5.json.gz", f"meta_{official}.json.gz")
    try:
        return OfficialFiles(*(fetch(name, target, [f"{url}/{name}" for url in MIRRORS]) for name in names))
    except ConnectionError as error:
        raise ConnectionError(
            f"{error} Or put {SEQUENCES}, {IDS} and {META} of P5's {ARCHIVE} (folder {category}) into {target}."
        ) from error


def load_amazon(category: str, raw_folder: Path, template: str = TEMPLATE) -> tuple[Catalog, Interactions]:
    """Items and interactions of "beauty", "sports" or "toys", in P5's order.

    Raw files missing from `raw_folder` are downloaded. P5's layout has no time: there, the timestamp of an
    interaction is its position in the user's sequence. Counts that differ from the published ones are logged as
    a warning. Raises ValueError if a file is damaged or belongs to another category, ConnectionError if a
    download fails.
    """
    files = fetch_amazon(category, raw_folder)
    catalog, interactions = read_amazon(files, template)
    counts = (interactions.log["user_id"].n_unique(), len(catalog), len(interactions))
    folder, expected = files.paths()[0].parent, _category(category).counts
    for name, other in CATEGORIES.items():
        if name != category and counts == other.counts:
            raise ValueError(
                f"{folder} contains the files of {name!r}, not of {category!r}: choose the right category or folder."
            )
    if counts != expected:
        log.warning(
            "%s has %d users, %d items and %d interactions; the published %s has %d, %d and %d.",
            folder, *counts, category, *expected,
        )  # fmt: skip
    return catalog, interactions


def with_possible_ties(interactions: Interactions) -> Interactions:
    """For a log without times: give the same timestamp to all interactions that may be on the same day.

    Reviews are dated by day, and those of one day are in the order of their item ids, as in the official files. A
    model can learn that order, although it is not user behaviour. The reviews of a day are within a run of
    ascending ids, so each run is treated as one day. Some runs span several days, so part of the true order is
    lost.
    """
    same_user = pl.col("user_id") == pl.col("user_id").shift(1)
    same_run = same_user & (pl.col("item_id") > pl.col("item_id").shift(1))
    run = (~same_run.fill_null(value=False)).cum_sum().cast(pl.Int64)
    return Interactions(interactions.log.with_columns(timestamp=run))


def read_amazon(files: Files, template: str = TEMPLATE) -> tuple[Catalog, Interactions]:
    """Read raw files of either layout; both give the same items and sequences."""
    if isinstance(files, P5Files):
        item_ids, interactions = _read_p5(files)
    else:
        item_ids, interactions = _read_official(files.reviews)
    return _catalog(item_ids, files.meta, template), interactions


def _read_p5(files: P5Files) -> tuple[list[str], Interactions]:
    """Item ids in P5's order, and the interaction log."""
    maps = _maps(files.ids)
    for kind in ("item", "user"):
        to_id, from_id = maps[f"{kind}2id"], maps[f"id2{kind}"]
        if {value: key for key, value in to_id.items()} != from_id:
            raise ValueError(f"{files.ids} is inconsistent: {kind}2id is not the inverse of id2{kind}.")
    items, users = maps["id2item"], maps["id2user"]
    if items.keys() != {str(number) for number in range(1, len(items) + 1)}:
        raise ValueError(f"{files.ids} does not number its items 1 to {len(items)}.")
    log_users: list[str] = []
    log_items: list[int] = []
    lengths: list[int] = []
    with parse_errors_for(files.sequences):
        lines = files.sequences.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        user, *history = line.split() or [""]
        unknown = [f"user {user}"] if user not in users else [f"item {i}" for i in history if i not in items]
        if unknown:
            raise ValueError(f"{files.sequences}, line {number}: {unknown[0]} is not in {files.ids}.")
        log_users.append(users[user])
        log_items.extend(map(int, history))
        lengths.append(len(history))
    if len(set(log_users)) != len(log_users) or len(log_users) != len(users):
        raise ValueError(
            f"{files.sequences} has {len(log_users)} lines, but {files.ids} has {len(users)} users: "
            f"one line per user is required. The file may be truncated; replace it."
        )
    ids = [items[str(number)] for number in range(1, len(items) + 1)]
    indices = np.array(log_items, dtype=np.int64) - 1
    offsets = np.cumsum([0, *lengths])
    frame = pl.DataFrame(
        {
            "user_id": np.repeat(np.array(log_users, dtype=object), lengths).tolist(),
            "item_id": pl.Series(ids).gather(indices),
            "timestamp": np.arange(len(indices)) - np.repeat(offsets[:-1], lengths),
        }
    )
    return ids, Interactions(frame)


def _maps(path: Path) -> dict[str, dict[str, str]]:
    """The content of P5's `datamaps.json`. Raises ValueError naming the file if it is damaged."""
    try:
        with parse_errors_for(path):
            maps = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Replace it.") from error
    for name in ("item2id", "id2item", "user2id", "id2user"):
        values = maps.get(name) if isinstance(maps, dict) else None
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise ValueError(f"{path} must hold {name}, an object of strings. Replace it by that of P5.")
    return maps


def _read_official(reviews: Path) -> tuple[list[str], Interactions]:
    """The same from the official reviews (one JSON object per line)."""
    rows = []
    for number, line in enumerate(_lines(reviews), 1):
        try:
            review = json.loads(line)
            row = (review["reviewerID"], review["asin"], int(review["unixReviewTime"]))
            if not (isinstance(row[0], str) and isinstance(row[1], str) and 0 <= row[2] < END):
                raise ValueError
            rows.append(row)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"{reviews}, line {number} is not a review: it must be an object whose reviewerID and asin are text "
                f"and whose unixReviewTime is seconds since 1970. Correct or remove it."
            ) from error
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    core = k_core(Interactions(pl.DataFrame(rows, schema=schema, orient="row")), CORE, CORE)
    users = core.log.select(pl.col("user_id").unique(maintain_order=True)).with_row_index("first")
    ordered = (
        core.log.join(users, on="user_id", maintain_order="left")
        .sort("first", "timestamp", maintain_order=True)
        .drop("first")
    )
    return ordered["item_id"].unique(maintain_order=True).to_list(), Interactions(ordered)


def _lines(path: Path) -> Iterator[str]:
    """The lines of a gzip file. Raises ValueError naming the file if it is damaged."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or broken ({error}). Delete it and run again.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}).") from error


def _read_meta(path: Path, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """The metadata of the wanted items; each line of the file is a Python dict literal."""
    items = {}
    for number, line in enumerate(_lines(path), 1):
        match = _ASIN.search(line)
        if not line.strip() or (match and match[1] not in wanted):
            continue  # most lines of a category: skip the slow parsing
        try:
            item = ast.literal_eval(line.strip())
            asin = item["asin"]
            if not isinstance(asin, str):
                raise TypeError("asin must be text")
        except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
            raise ValueError(
                f"{path}, line {number} is not a dict literal of an item ({error!r})."
            ) from error
        if asin in wanted:
            items[asin] = item
    return items


def _catalog(item_ids: list[str], meta: Path, template: str) -> Catalog:
    items = _read_meta(meta, set(item_ids))
    rows = []
    for item_id in item_ids:
        item = items.get(item_id, {})
        if clean(item.get("brand")).lower() == "unknown":
            item = {**item, "brand": None}
        fields = (_price(item.get("price")), clean(item.get("brand")) or None, _words(item.get("categories")))
        rows.append((item_id, clean(item.get("title")), fill(template, item), *fields))
    if without := sum(not row[2] for row in rows):
        log.warning("%d of %d items have no text in %s.", without, len(rows), meta)
    return Catalog(pl.DataFrame(rows, schema=SCHEMA, orient="row"))


def _price(value: Any) -> float | None:
    """A price in dollars; None for anything else."""
    return float(value) if isinstance(value, int | float) and 0 <= value < LARGEST_PRICE else None


def _words(categories: Any) -> list[str]:
    """The categories of an item, each once: the metadata has lists of paths."""
    paths = categories if isinstance(categories, list) else []
    flat = (clean(one) for path in paths for one in (path if isinstance(path, list) else [path]))
    return list(dict.fromkeys(filter(None, flat)))
