import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rqrec.data.dataset import Dataset
from rqrec.data.sources import amazon
from rqrec.data.sources.amazon import fetch_amazon, find_amazon, load_amazon

# Five users and six items; the last item has only four interactions, so it is not in the 5-core.
ITEMS = ["B0E", "B0A", "B0C", "B0D", "B0B", "B0X"]
META = [
    {
        "asin": "B0A",
        "title": "Lip &amp; Cheek",
        "brand": "L&#39;Or",
        "price": 7.5,
        "categories": [["Beauty", "Lips"]],
    },
    {
        "asin": "B0B",
        "title": "Soap",
        "categories": [["Beauty", "Bath"], ["Beauty", "Gifts"]],
        "related": {"asin": 1},
    },
    {"asin": "B0C", "brand": "Unknown", "categories": [["Beauty"]], "price": float("nan")},
    {"asin": "B0D", "title": "nan", "brand": "", "categories": [["Beauty"]]},
    {"asin": "B0E", "title": "Brush", "brand": "Br", "categories": [["Beauty", "Tools"]], "price": 3},
    {"asin": "B0Z", "title": "without reviews"},
]
TEXTS = {
    "B0A": "Title: Lip & Cheek; Brand: L'Or; Categories: Beauty, Lips; Price: 7.5",
    "B0B": "Title: Soap; Categories: Beauty, Bath, Gifts",
    "B0C": "Categories: Beauty",
    "B0D": "Categories: Beauty",
    "B0E": "Title: Brush; Brand: Br; Categories: Beauty, Tools; Price: 3",
}
# (user, item, day) in the order of the review file: by item; a user has several reviews on a day.
REVIEWS = [
    (f"U{user}", item, 100 + (user * 3 + number * 2) % 4)
    for number, item in enumerate(ITEMS)
    for user in (4, 1, 2, 5, 3)
    if item != "B0X" or user != 3
]


def write_meta(path: Path) -> None:
    lines = "".join(repr(item).replace("nan}", "'nan'}") + "\n" for item in META)
    path.write_bytes(gzip.compress(lines.encode()))


def write_official(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(
        json.dumps({"reviewerID": user, "asin": item, "overall": 5.0, "unixReviewTime": day * 86400}) + "\n"
        for user, item, day in REVIEWS
    )
    (folder / "reviews_Beauty_5.json.gz").write_bytes(gzip.compress(lines.encode()))
    write_meta(folder / "meta_Beauty.json.gz")
    return folder


def write_p5(folder: Path) -> Path:
    """P5's files for the same reviews, by a direct implementation of P5's preprocessing."""
    folder.mkdir(parents=True, exist_ok=True)
    histories: dict[str, list[tuple[int, str]]] = {}
    for user, item, day in REVIEWS:
        if item != "B0X":  # below the 5-core
            histories.setdefault(user, []).append((day, item))
    users: dict[str, str] = {}
    items: dict[str, str] = {}
    lines = []
    for user, history in histories.items():
        users[user] = str(len(users) + 1)
        ordered = [item for _, item in sorted(history, key=lambda pair: pair[0])]
        for item in ordered:
            items.setdefault(item, str(len(items) + 1))
        lines.append(" ".join([users[user], *(items[item] for item in ordered)]) + "\n")
    (folder / "sequential_data.txt").write_text("".join(lines))
    maps = {
        "user2id": users,
        "item2id": items,
        "id2user": {number: user for user, number in users.items()},
        "id2item": {number: item for item, number in items.items()},
    }
    (folder / "datamaps.json").write_text(json.dumps(maps))
    write_meta(folder / "meta.json.gz")
    return folder


def test_both_layouts_give_the_same_items_and_sequences(tmp_path: Path) -> None:
    p5 = Dataset.from_interactions(*load_amazon("beauty", write_p5(tmp_path / "p5")))
    official = Dataset.from_interactions(*load_amazon("beauty", write_official(tmp_path / "official")))
    assert p5.catalog.items.equals(official.catalog.items)
    assert p5.sequences.user_ids == official.sequences.user_ids == ("U4", "U1", "U2", "U5", "U3")
    assert p5.sequences.items.tolist() == official.sequences.items.tolist()
    assert p5.sequences.offsets.tolist() == official.sequences.offsets.tolist()
    assert p5.sequences.order_only
    assert not official.sequences.order_only


def test_texts_contain_only_the_known_fields(tmp_path: Path) -> None:
    catalog, _ = load_amazon("beauty", write_p5(tmp_path))
    assert dict(zip(catalog.items["item_id"], catalog.items["text"], strict=True)) == TEXTS
    titles = dict(zip(catalog.items["item_id"], catalog.titles(), strict=True))
    assert titles["B0A"] == "Lip & Cheek"
    assert titles["B0D"] == "B0D"


def test_the_folder_may_be_the_root_of_the_dataset(tmp_path: Path) -> None:
    write_p5(tmp_path / "raw" / "beauty")
    assert find_amazon("beauty", tmp_path) is not None
    assert find_amazon("toys", tmp_path) is None


def test_counts_are_checked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.WARNING):
        load_amazon("beauty", write_p5(tmp_path))
    assert "has 5 users, 5 items and 25 interactions; the published beauty has 22363, 12101" in caplog.text
    monkeypatch.setitem(amazon.CATEGORIES, "toys", amazon.Category("Toys_and_Games", (5, 5, 25)))
    with pytest.raises(ValueError, match="contains the files of 'toys', not of 'beauty'"):
        load_amazon("beauty", tmp_path)


def test_a_truncated_sequence_file_is_refused(tmp_path: Path) -> None:
    path = write_p5(tmp_path) / "sequential_data.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match=r"has 4 lines, but .*datamaps.json has 5 users"):
        load_amazon("beauty", tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda maps: [maps],
        lambda maps: {},
        lambda maps: "text",
        lambda maps: {**maps, "item2id": [1]},
        lambda maps: {**maps, "id2user": {"1": ["U1"]}},
        lambda maps: {name: {**ids, "9": 9} for name, ids in maps.items()},
    ],
)
def test_maps_of_another_form_are_refused(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    path = write_p5(tmp_path) / "datamaps.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=r"datamaps.json must hold \w+, an object of strings"):
        load_amazon("beauty", tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b'{"item2id": "\xe9"}'])
def test_maps_that_cannot_be_read_are_refused(tmp_path: Path, content: bytes) -> None:
    (write_p5(tmp_path) / "datamaps.json").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"datamaps.json (is not valid JSON|has text that is not valid Unicode)"
    ):
        load_amazon("beauty", tmp_path)


@pytest.mark.parametrize("content", ["\n", "1 1\n\n"])
def test_an_empty_line_of_sequences_is_refused(tmp_path: Path, content: str) -> None:
    (write_p5(tmp_path) / "sequential_data.txt").write_text(content)
    with pytest.raises(ValueError, match=r"sequential_data.txt, line \d: user  is not in"):
        load_amazon("beauty", tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"unixReviewTime": 10**400},
        {"unixReviewTime": float("inf")},
        {"unixReviewTime": -1},
        {"reviewerID": 7},
        {"asin": ["B0A"]},
    ],
)
def test_reviews_with_other_values_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write_official(tmp_path) / "reviews_Beauty_5.json.gz"
    review = {"reviewerID": "U1", "asin": "B0A", "unixReviewTime": 1, **change}
    path.write_bytes(gzip.compress(json.dumps(review).encode()))
    with pytest.raises(ValueError, match=r"reviews_Beauty_5.json.gz, line 1 is not a review"):
        load_amazon("beauty", tmp_path)


def test_an_item_missing_from_the_maps_is_refused(tmp_path: Path) -> None:
    path = write_p5(tmp_path) / "sequential_data.txt"
    path.write_text(path.read_text() + "1 99\n")
    with pytest.raises(ValueError, match=r"line 6: item 99 is not in .*datamaps.json"):
        load_amazon("beauty", tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (gzip.compress(b"{'asin': 'B0A'}\n" * 9000)[:60], "truncated or broken"),
        (b"no gzip", "truncated or broken"),
        (
            gzip.compress(b"{'asin': 'B0A', 'title': __import__('os').getcwd()}\n"),
            "line 1 is not a dict literal",
        ),
        (gzip.compress(b"{'asin': 'B0A', 'title': '\xe9'}\n"), "not UTF-8"),
        (gzip.compress(b"{'asin': ['B0A']}\n"), "line 1 is not a dict literal of an item"),
    ],
)
def test_damaged_or_unsafe_metadata_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    (write_p5(tmp_path) / "meta.json.gz").write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        load_amazon("beauty", tmp_path)


def test_offline_the_error_says_which_files_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object) -> str:
        raise ConnectionError("There is no network.")

    monkeypatch.setattr(amazon, "drive_url", offline)
    monkeypatch.setattr(amazon, "fetch", offline)
    with pytest.raises(
        ConnectionError, match=r"put sequential_data.txt, datamaps.json and meta.json.gz .* toys"
    ):
        fetch_amazon("toys", tmp_path)
    with pytest.raises(ValueError, match="Unknown Amazon category 'books'; allowed are beauty, sports, toys"):
        fetch_amazon("books", tmp_path)


def test_beauty_is_complete(shared_data: Path) -> None:
    folder = shared_data / "amazon" / "raw" / "beauty"
    dataset = Dataset.from_interactions(*load_amazon("beauty", folder))
    assert dataset.counts() == {"users": 22_363, "items": 12_101, "interactions": 198_502}
    lines = (folder / "sequential_data.txt").read_text().splitlines()
    for user in (0, 1000, 22_362):
        assert (dataset.sequences.of_user(user) + 1).tolist() == [int(i) for i in lines[user].split()[1:]]
    assert dataset.catalog.id_map.all[3] == "7806397051"
    texts = dataset.catalog.items["text"]
    assert texts.str.len_chars().min() > 0
    assert not texts.str.contains("(?i)nan;|&#39;|&amp;|Unknown").any()
