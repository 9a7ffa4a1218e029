"""Amazon Reviews 2014 (J. McAuley et al., 2015), 5-core: Beauty, Sports and Outdoors, Toys and Games.

The sequences are those of P5 (S. Geng et al., arXiv 2203.13366), which TIGER (arXiv 2305.05065) and most
that follow evaluate on. They come from P5's archive, or are made again from the official reviews: users in
the order of the file of reviews, a user's reviews by day and, within a day, in the order of the file; items
numbered as those sequences meet them.
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
from rqrec.data.templates import clean, fill

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

_ASIN = re.compile(r"""['"]asin['"]: ['"](\w+)['"]""")


@dataclass(frozen=True)
class Category:
    """One category: its name in the official files, and the counts of P5's sequences."""

    category: str
    counts: tuple[int, int, int]  # users, items, interactions


CATEGORIES = {
    "beauty": Category("Beauty", (22_363, 12_101, 198_502)),
    "sports": Category("Sports_and_Outdoors", (35_598, 18_357, 296_337)),
    "toys": Category("Toys_and_Games", (19_412, 11_924, 167_597)),
}


@dataclass(frozen=True)
class P5Files:
    """The files of P5's layout."""

    sequences: Path
    ids: Path
    meta: Path

    def paths(self) -> tuple[Path, ...]:
        """Every file, in a fixed order."""
        return self.sequences, self.ids, self.meta


@dataclass(frozen=True)
class OfficialFiles:
    """The official 5-core reviews and the metadata of a category."""

    reviews: Path
    meta: Path

    def paths(self) -> tuple[Path, ...]:
        """Every file, in a fixed order."""
        return self.reviews, self.meta


Files = P5Files | OfficialFiles


def _category(name: str) -> Category:
    if name not in CATEGORIES:
        raise ValueError(f"There is no Amazon split {name!r}; allowed are {', '.join(CATEGORIES)}.")
    return CATEGORIES[name]


def find_amazon(split: str, raw_folder: Path) -> Files | None:
    """The raw files where `raw_folder`, its `split` or its `raw/split` already holds them; else None."""
    category, raw_folder = _category(split).category, Path(raw_folder)
    folders = (raw_folder, raw_folder / split, raw_folder / "raw" / split)
    for folder in folders:
        p5 = P5Files(folder / SEQUENCES, folder / IDS, folder / META)
        if all(path.is_file() for path in p5.paths()):
            return p5
    for folder in folders:
        official = OfficialFiles(
            folder / f"reviews_{category}_5.json.gz", folder / f"meta_{category}.json.gz"
        )
        if all(path.is_file() for path in official.paths()):
            return official
    return None


def fetch_amazon(split: str, raw_folder: Path) -> Files:
    """The raw files, downloaded into `raw_folder` unless they are there.

    P5's archive is tried first, then the official reviews and metadata.
    Raises ConnectionError that says what to put where.
    """
    if found := find_amazon(split, raw_folder):
        return found
    raw_folder = Path(raw_folder)
    target = raw_folder / "raw" / split
    try:
        urls = [] if (raw_folder / ARCHIVE).exists() else [drive_url(ARCHIVE_ID)]
        archive = fetch(ARCHIVE, raw_folder, urls)
        members = [f"{split}/{name}" for name in (SEQUENCES, IDS, META)]
        return P5Files(*extract(archive, members, target))
    except ConnectionError as error:
        log.warning("%s The official reviews are tried instead.", error)
    category = _category(split).category
    names = (f"reviews_{category}_5.json.gz", f"meta_{category}.json.gz")
    try:
        return OfficialFiles(*(fetch(name, target, [f"{url}/{name}" for url in MIRRORS]) for name in names))
    except ConnectionError as error:
        raise ConnectionError(
            f"{error} Or put {SEQUENCES}, {IDS} and {META} of P5's {ARCHIVE} (folder {split}) into {target}."
        ) from error


def load_amazon(split: str, raw_folder: Path, template: str = TEMPLATE) -> tuple[Catalog, Interactions]:
    """Items and interactions of "beauty", "sports" or "toys", in P5's order.

    P5's layout keeps no time: there, an interaction's timestamp is its position in the user's sequence.
    A folder that holds the raw files is used as it is; counts that differ from the published ones are logged
    as a warning. Raises ValueError where a file is broken or belongs to another split, ConnectionError where
    the files are neither there nor to be had.
    """
    files = fetch_amazon(split, raw_folder)
    catalog, interactions = read_amazon(files, template)
    found = (interactions.log["user_id"].n_unique(), len(catalog), len(interactions))
    folder, expected = files.paths()[0].parent, _category(split).counts
    for name, other in CATEGORIES.items():
        if name != split and found == other.counts:
            raise ValueError(f"{folder} holds the files of {name!r}, not of {split!r}: name the right one.")
    if found != expected:
        log.warning(
            "%s holds %d users, %d items and %d interactions; the published %s has %d, %d and %d.",
            folder, *found, split, *expected,
        )  # fmt: skip
    return catalog, interactions


def with_possible_ties(interactions: Interactions) -> Interactions:
    """The log of an order alone, with one time for all interactions that may have been on one day.

    The reviews' times are days, and those of one day stand in the order of their item ids, as the official files
    do: a model can learn that order, which tells nothing of people. So the reviews of a day lie within a run of
    ascending ids, and a run is taken for one day. Some runs are longer than their days, so that less is
    left of the order than is true of it.
    """
    same_user = pl.col("user_id") == pl.col("user_id").shift(1)
    goes_on = same_user & (pl.col("item_id") > pl.col("item_id").shift(1))
    run = (~goes_on.fill_null(value=False)).cum_sum().cast(pl.Int64)
    return Interactions(interactions.log.with_columns(timestamp=run))


def read_amazon(files: Files, template: str = TEMPLATE) -> tuple[Catalog, Interactions]:
    """Read the raw files in either layout; both give the same items and sequences."""
    if isinstance(files, P5Files):
        item_ids, interactions = _read_p5(files)
    else:
        item_ids, interactions = _read_official(files.reviews)
    return _catalog(item_ids, files.meta, template), interactions


def _read_p5(files: P5Files) -> tuple[list[str], Interactions]:
    """The item ids in P5's order, and the log."""
    maps = json.loads(files.ids.read_text(encoding="utf-8"))
    for kind in ("item", "user"):
        to_id, from_id = maps[f"{kind}2id"], maps[f"id2{kind}"]
        if {value: key for key, value in to_id.items()} != from_id:
            raise ValueError(f"{files.ids} contradicts itself: {kind}2id is not the inverse of id2{kind}.")
    items, users = maps["id2item"], maps["id2user"]
    if items.keys() != {str(number) for number in range(1, len(items) + 1)}:
        raise ValueError(f"{files.ids} numbers its items other than 1 to {len(items)}.")
    log_users: list[str] = []
    log_items: list[int] = []
    lengths: list[int] = []
    for number, line in enumerate(files.sequences.read_text(encoding="utf-8").splitlines(), 1):
        user, *taken = line.split()
        unknown = [f"user {user}"] if user not in users else [f"item {i}" for i in taken if i not in items]
        if unknown:
            raise ValueError(f"{files.sequences}, line {number}: {unknown[0]} is not in {files.ids}.")
        log_users.append(users[user])
        log_items.extend(map(int, taken))
        lengths.append(len(taken))
    if len(set(log_users)) != len(log_users) or len(log_users) != len(users):
        raise ValueError(
            f"{files.sequences} has {len(log_users)} lines, but {files.ids} has {len(users)} users: "
            f"each needs one line. The file may be truncated; restore it."
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


def _read_official(reviews: Path) -> tuple[list[str], Interactions]:
    """The same from the official reviews (a JSON object a line)."""
    rows = []
    for number, line in enumerate(_lines(reviews), 1):
        try:
            review = json.loads(line)
            rows.append((review["reviewerID"], review["asin"], int(review["unixReviewTime"])))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{reviews}, line {number} is not a review ({error!r}).") from error
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
    """The lines of a gzip file; a broken one is a ValueError that names it."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or broken ({error}). Delete it and run again.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}).") from error


def _read_meta(path: Path, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """The metadata of the wanted items; a line is a Python dict literal."""
    found = {}
    for number, line in enumerate(_lines(path), 1):
        match = _ASIN.search(line)
        if not line.strip() or (match and match[1] not in wanted):
            continue  # most lines of a whole category: not worth parsing
        try:
            item = ast.literal_eval(line.strip())
            asin = item["asin"]
        except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is not the literal of an item ({error!r}).") from error
        if asin in wanted:
            found[asin] = item
    return found


def _catalog(item_ids: list[str], meta: Path, template: str) -> Catalog:
    items = _read_meta(meta, set(item_ids))
    rows = []
    for item_id in item_ids:
        item = items.get(item_id, {})
        if clean(item.get("brand")).lower() == "unknown":
            item = {**item, "brand": None}
        rows.append((item_id, clean(item.get("title")), fill(template, item)))
    if without := sum(not text for _, _, text in rows):
        log.warning("%d of %d items have no text in %s.", without, len(rows), meta)
    return Catalog(pl.DataFrame(rows, schema=["item_id", "title", "text"], orient="row"))
