import re
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rqrec.data.columns import find_column
from rqrec.data.dataset import Dataset
from rqrec.data.expressions import matching
from rqrec.data.fields import Fields
from rqrec.data.new_fields import field_types
from rqrec.data.sources.custom import CustomFiles, CustomOptions, load_custom, read_new_items
from rqrec.data.splits import leave_one_out

LOG = {
    "user_id": ["u", "v", "u", "u", "w"],
    "item_id": ["b", "a", "c", "a", "c"],
    "timestamp": [30, 5, 10, 20, 7],
}
ITEMS: dict[str, list[Any]] = {
    "item_id": ["a", "b", "c"],
    "title": ["Ape", "Bee", "Cat &amp; Co"],
    "text": ["Ape text", "Bee text", "Cat text"],
    "brand": ["X", None, "Y"],
}


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    table = pl.DataFrame(columns)
    {".parquet": table.write_parquet, ".csv": table.write_csv, ".jsonl": table.write_ndjson}[path.suffix](
        path
    )
    return path


@pytest.mark.parametrize("log_suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("items_suffix", [".parquet", ".csv", ".jsonl"])
def test_a_log_and_items(tmp_path: Path, log_suffix: str, items_suffix: str) -> None:
    write(tmp_path / f"log{log_suffix}", LOG)
    write(tmp_path / f"items{items_suffix}", ITEMS)
    dataset = Dataset.from_interactions(*load_custom(CustomFiles.in_folder(tmp_path)))
    assert dataset.catalog.items["text"].to_list() == ITEMS["text"]
    assert dataset.catalog.titles() == ["Ape", "Bee", "Cat & Co"]
    assert dataset.sequences.user_ids == ("u", "v", "w")
    assert dataset.sequences.of_user(0).tolist() == [2, 0, 1]  # by time, although the log is unordered
    assert len(leave_one_out(dataset.sequences).test) == 1  # users with one item have no evaluation example


def test_texts_are_built_from_a_template(tmp_path: Path) -> None:
    files = CustomFiles(write(tmp_path / "l.csv", LOG), write(tmp_path / "i.jsonl", ITEMS))
    catalog, _ = load_custom(files, "{title}; Brand: {brand}")
    assert catalog.items["text"].to_list() == ["Ape; Brand: X", "Bee", "Cat & Co; Brand: Y"]
    with pytest.raises(
        ValueError, match=r"i.jsonl lacks colour; its columns are item_id, title, text, brand"
    ):
        load_custom(files, "{title}; {colour}")


def test_precomputed_embeddings_are_matched_to_items(tmp_path: Path) -> None:
    np.save(tmp_path / "item_embeddings.npy", np.ones((3, 4)))
    write(tmp_path / "log.csv", LOG)
    write(tmp_path / "items.csv", {"item_id": ["c", "a", "b"]})
    catalog, _ = load_custom(CustomFiles.in_folder(tmp_path))
    assert catalog.items["embedding_row"].to_list() == [0, 1, 2]
    assert catalog.titles() == ["c", "a", "b"]
    np.save(tmp_path / "item_embeddings.npy", np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"has 2 rows, but .*items.csv has 3 items"):
        load_custom(CustomFiles.in_folder(tmp_path))


def test_without_an_items_file_ids_are_row_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "item_embeddings.npy", np.ones((3, 4)))
    write(tmp_path / "log.parquet", {**LOG, "item_id": [2, 0, 1, 0, 1]})
    dataset = Dataset.from_interactions(*load_custom(CustomFiles.in_folder(tmp_path)))
    assert dataset.sequences.of_user(0).tolist() == [1, 0, 2]
    write(tmp_path / "log.parquet", {**LOG, "item_id": [2, 0, 1, 0, 3]})
    with pytest.raises(
        ValueError, match=r"1 has an item_id that is not among the items \(the first is '3' in row 5\)"
    ):
        load_custom(CustomFiles.in_folder(tmp_path))


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([date(1970, 1, 2)] * 5, 86_400),
        ([datetime(1970, 1, 1, 0, 0, 1)] * 5, 1),
        ([1.7e12] * 5, 1_700_000_000),
        ([5.0] * 5, 5),
        ([" 7"] * 5, 7),
    ],
)
def test_timestamps_in_other_types(tmp_path: Path, times: list[Any], expected: int) -> None:
    files = CustomFiles(
        write(tmp_path / "log.parquet", {**LOG, "timestamp": times}), write(tmp_path / "items.csv", ITEMS)
    )
    assert load_custom(files)[1].log["timestamp"].to_list() == [expected] * 5


@pytest.mark.parametrize("word", ["NULL", "nan", "\\N"])
def test_ids_that_may_stand_for_missing_ones_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    log = {"user_id": ["u", word, word], "item_id": ["a", "b", "c"], "timestamp": [1, 2, 3]}
    files = CustomFiles(write(tmp_path / "log.csv", log), write(tmp_path / "items.csv", ITEMS))
    _, interactions = load_custom(files)
    assert interactions.log["user_id"].to_list() == ["u", word, word]
    said = capsys.readouterr().err
    assert f"log.csv: 2 rows have the user_id {word!r}, which counts as an id." in said
    assert "the item_id" not in said


def test_each_spelling_of_a_missing_id_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = {"user_id": ["NA", "nan", "NA", "u"], "item_id": ["a", "b", "c", "a"], "timestamp": [1, 2, 3, 4]}
    load_custom(CustomFiles(write(tmp_path / "log.csv", log), write(tmp_path / "items.csv", ITEMS)))
    assert "log.csv: 3 rows have the user_id 'NA', 'nan', which counts" in capsys.readouterr().err


@pytest.mark.parametrize("tie_break", ["keep", "hash"])
def test_interactions_within_a_second_keep_their_order(tmp_path: Path, tie_break: str) -> None:
    second = 1_700_000_000_000
    log = {
        "user_id": ["u"] * 4,
        "item_id": ["a", "b", "c", "b"],
        "timestamp": [second + 30, second + 10, second + 20, second - 1],
    }
    files = CustomFiles(write(tmp_path / "log.csv", log), write(tmp_path / "items.csv", ITEMS))
    catalog, interactions = load_custom(files)
    sequences = interactions.sequences(catalog.id_map, tie_break=tie_break)
    assert sequences.of_user(0).tolist() == [1, 1, 2, 0]
    assert sequences.timestamps.tolist() == [1_699_999_999, 1_700_000_000, 1_700_000_000, 1_700_000_000]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"timestamp": None}, r"log.parquet lacks timestamp; its columns are user_id, item_id"),
        (
            {"timestamp": [1, 2, 3, -4, 5]},
            r"1 of 5 rows cannot be used: 1 has a timestamp that is not valid \(the first is '-4' in row 4\)",
        ),
        ({"timestamp": [1, 2, None, 4, 5]}, r"1 has no timestamp \(the first is row 3\)"),
        (
            {"timestamp": ["1", "2", "soon", "4", ""]},
            r"2 of 5 .*: 1 has no timestamp \(the first is row 5\); 1 has .* \(the first is 'soon' in row 3\)",
        ),
        ({"timestamp": [True] * 5}, "timestamp must hold numbers, dates or times, not Boolean"),
        (
            {"timestamp": [1700000000, 1700000001000, 1700000002, 1700000003, 1700000004]},
            r"log.parquet: timestamp mixes seconds \(row 1: 1700000000\) and milliseconds \(row 2: 1700000001000\)",
        ),
        ({"user_id": ["u", None, "u", "", "u"]}, r"2 have no user_id \(the first is row 2\)"),
        ({"item_id": [1.0, 2.5, 3.0, 4.0, 5.0]}, "item_id must hold strings or whole numbers, not Float64"),
        ({"user_id": [float("inf")] * 5}, "user_id must hold strings or whole numbers, not Float64"),
        ({"user_id": [2.0**53] * 5}, "not Float64, unless all are whole and below 9007199254740992"),
        (
            {"item_id": ["a", "b", "zz", "y", "a"]},
            r"2 .* have an item_id that is not among the items \(the first is 'zz' in row 3\)",
        ),
        ({"user_id": [], "item_id": [], "timestamp": []}, "is empty"),
    ],
)
def test_an_invalid_log_is_refused(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    columns = {name: values for name, values in {**LOG, **change}.items() if values is not None}
    files = CustomFiles(write(tmp_path / "log.parquet", columns), write(tmp_path / "items.csv", ITEMS))
    with pytest.raises(ValueError, match=problem):
        load_custom(files)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"title": None, "text": None, "brand": None, "imdbId": [7, 8, 9], "page": ["http://a"] * 3},
            r"has no column that describes the items; its columns are item_id, imdbId, page. Add text",
        ),
        (
            {"item_id": ["a", "b", "a"]},
            r"items.jsonl: 1 of 3 .* 1 has an item_id that occurs more than once \(the first is 'a' in line 3\)",
        ),
        ({"text": ["x", "nan", "y"]}, r"1 has no text \(the first is 'b' in line 2\)"),
        ({"item_id": None}, "lacks item_id"),
        ({"text": [{"x": 1}] * 3}, "text must hold text, numbers, dates or lists of these, not Struct"),
        ({"title": [[[{"x": 1}]]] * 3}, "title must hold text, numbers, dates or lists of these, not List"),
    ],
)
def test_invalid_items_are_refused(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    columns = {name: values for name, values in {**ITEMS, **change}.items() if values is not None}
    files = CustomFiles(write(tmp_path / "log.csv", LOG), write(tmp_path / "items.jsonl", columns))
    with pytest.raises(ValueError, match=problem):
        load_custom(files)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "log.csv",
            b"user_id,item_id,timestamp\nu\xc3\xa9,a,1\nv\xe9,b,2\n",
            "log.csv is not UTF-8 text: line 3",
        ),
        ("log.csv", b"", r"log.csv is empty: its first line must name the columns"),
        (
            "log.csv",
            b"user_id,item_id,timestamp\nu,a,1\nv,b,2,3\n",
            "line 3 has 4 fields, but line 1 has 3",
        ),
        (
            "log.csv",
            b'user_id,item_id,timestamp\nu,a,1\nv,"b,2\n',
            r"a quote \(\"\) after line 2 is not closed",
        ),
        (
            "log.csv",
            b'user_id,item_id,timestamp\nu"v,a,1\nv,b,2\n',
            r"line 2 has a quote \(\"\) inside a field. Put quotes around it, and write the quote twice",
        ),
        (
            "log.csv",
            b"user_id::item_id::timestamp\nu::a::1\n",
            "is separated by '::'; allowed are ',', ';', tabs",
        ),
        ("log.jsonl", rb'{"user_id": "\ud800", "item_id": "a", "timestamp": 1}', "not valid Unicode"),
        ("log.csv.gz", b"\x1f\x8bno", "is not a complete gzip file"),
        ("log.json", b'[{"user_id": "u"},\n {"user_id": }]', "line 2 is not valid JSON"),
        ("log.json", b"[1, 2]", "must hold one or more objects"),
        ("log.parquet", b"PAR1 no more", r"log.parquet cannot be read"),
        ("items.jsonl", b'{"item_id": "a", "text"', r"items.jsonl cannot be read: line 1 is not valid JSON"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    paths = {"log": write(tmp_path / "log.csv", LOG), "items": write(tmp_path / "items.csv", ITEMS)}
    path = tmp_path / name
    path.write_bytes(content)
    paths[name.partition(".")[0]] = path
    with pytest.raises(ValueError, match=problem):
        load_custom(CustomFiles(paths["log"], paths["items"]))


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"needs one log.parquet or log.csv .* it has none of them"):
        CustomFiles.in_folder(tmp_path)
    log = write(tmp_path / "log.csv", LOG)
    with pytest.raises(ValueError, match="does not describe the items"):
        load_custom(CustomFiles.in_folder(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"There is no file .*nothing.csv"):
        load_custom(CustomFiles(log, tmp_path / "nothing.csv"))
    (tmp_path / "items.txt").write_text("")
    with pytest.raises(
        ValueError,
        match=r"the suffix '.txt'; allowed are .parquet, .csv, .tsv, .jsonl, .ndjson, .json, also with .gz",
    ):
        load_custom(CustomFiles(log, tmp_path / "items.txt"))


def prepared(
    tmp_path: Path, log: str, items: str = "", template: str | None = None, **options: Any
) -> tuple[list[str], list[tuple[str, str]]]:
    """The texts of the items, and user and item of each interaction."""
    (tmp_path / "l.csv").write_text(log, encoding="utf-8")
    (tmp_path / "i.csv").write_text(items or "item_id,text\na,A\nb,B\nc,C\n", encoding="utf-8")
    files = CustomFiles(tmp_path / "l.csv", tmp_path / "i.csv")
    catalog, interactions = load_custom(files, template, CustomOptions(**options))
    return catalog.items["text"].to_list(), interactions.log.select("user_id", "item_id").rows()


@pytest.mark.parametrize(
    ("header", "options", "said"),
    [
        ("userId,movieId,timestamp", {}, "it reads user_id from userId, item_id from movieId."),
        ("USER_ID,Item Id,ts", {}, "user_id from USER_ID, item_id from Item Id, timestamp from ts."),
        ("reviewerID,asin,unixReviewTime", {}, "item_id from asin, timestamp from unixReviewTime"),
        (
            "who,what,when",
            {"user_column": "who", "item_column": "what", "time_column": "when"},
            "user_id from who",
        ),
        ("user_id,uid,time", {"item_column": "uid"}, "item_id from uid, timestamp from time."),
        ("CustomerID,StockCode,InvoiceDate", {}, "item_id from StockCode, timestamp from InvoiceDate."),
        ("user_pseudo_id,item_id,event_timestamp", {}, "user_id from user_pseudo_id, timestamp from event_"),
    ],
)
def test_columns_are_recognised_by_their_names_or_named_by_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], header: str, options: dict[str, Any], said: str
) -> None:
    assert prepared(tmp_path, f"{header}\nu,a,1\nu,b,2\n", **options)[1] == [("u", "a"), ("u", "b")]
    assert said in capsys.readouterr().err


def test_a_log_with_two_item_ids_is_read_by_the_one_that_the_items_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Amazon's reviews name a product and its parent, and its items are the parents."""
    log = "user_id,asin,parent_asin,timestamp\nu,x,a,1\nu,y,b,2\n"
    items = "parent_asin,title\na,A\nb,B\n"
    assert prepared(tmp_path, log, items)[1] == [("u", "a"), ("u", "b")]
    assert "item_id from parent_asin" in capsys.readouterr().err
    with pytest.raises(ValueError, match="several columns could be item_id: asin, parent_asin"):
        prepared(tmp_path, log, "sku,title\na,A\nb,B\n")


def test_more_rows_than_allowed_are_not_dropped(tmp_path: Path) -> None:
    log = "user_id,item_id,timestamp\nu,a,1\nu,z,2\nu,b,3\n"
    assert prepared(tmp_path, log, drop_invalid=True, max_invalid=0.4)[1] == [("u", "a"), ("u", "b")]
    with pytest.raises(ValueError, match=r"1 of 3 rows cannot be used, and no more than 20% are dropped"):
        prepared(tmp_path, log, drop_invalid=True, max_invalid=0.2)


@pytest.mark.parametrize(
    ("header", "options", "problem"),
    [
        (
            "customer,uid,item,time",
            {},
            r"l.csv: several columns could be user_id: customer, uid. Name the one to use with --user-column",
        ),
        (
            "wer,was,time",
            {},
            "lacks user_id, item_id; its columns are wer, .* with --user-column and --item",
        ),
        ("user,item,time", {"user_column": "kunde"}, "lacks kunde; its columns are user, item, time"),
        ("user,item,time", {"item_column": "artikel"}, "No file has a column 'artikel'"),
        ("user,item,time", {"user_column": "item"}, "one column cannot be two things"),
    ],
)
def test_columns_that_are_not_clear_are_refused(
    tmp_path: Path, header: str, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        prepared(tmp_path, f"{header}\n{','.join('u' * header.count(','))},1\n", **options)


@pytest.mark.parametrize(
    ("rows", "order"),
    [
        ("u,a,30\nu,b,20\n", "user_id, item_id, timestamp"),
        ("u,a,4.5,1700000030\nu,b,2,1700000020\n", "user_id, item_id, rating, timestamp"),
        ("u,a,1700000030,4.5\nu,b,1700000020,2\n", "user_id, item_id, timestamp, rating"),
        ("u,a,2024-01-02\nu,b,2024-01-01\n", "user_id, item_id, timestamp"),
    ],
)
def test_a_log_without_a_header(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: str, order: str
) -> None:
    assert prepared(tmp_path, rows)[1] == [("u", "a"), ("u", "b")]
    assert f"l.csv: no header; its columns are read as {order}." in capsys.readouterr().err
    if "rating" in order:
        assert prepared(tmp_path, rows, min_rating=4)[1] == [("u", "a")]


def test_a_log_without_a_header_whose_columns_are_not_clear_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no header, and what its 4 columns are is not clear"):
        prepared(tmp_path, "u,a,1700000030,1700000030\n")
    columns = {"user_column": "column_2", "item_column": "column_1", "time_column": "column_4"}
    assert prepared(tmp_path, "a,u,1700000030,1700000030\n", **columns)[1] == [("u", "a")]


def test_rows_that_cannot_be_used_are_counted_by_reason_and_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = "user_id,item_id,timestamp\nu,a,1\n,a,2\n\nu,,3\nu,b,\nu,b,soon\nu,z,4\nu,y,5\nu,b,-6\nu,c,7\n"
    reasons = (
        "1 has no user_id (the first is line 3); 1 has no item_id (the first is line 5); 1 has no timestamp (the "
        "first is line 6); 2 have a timestamp that is not valid (the first is 'soon' in line 7); 2 have an item_id "
        "that is not among the items (the first is 'z' in line 8)."
    )
    with pytest.raises(ValueError, match=r"l.csv: 7 of 9 rows cannot be used") as caught:
        prepared(tmp_path, log)
    assert reasons in str(caught.value)
    assert "drop them with --drop-invalid (drop_invalid=True in a gin file)." in str(caught.value)
    capsys.readouterr()
    assert prepared(tmp_path, log, drop_invalid=True)[1] == [("u", "a"), ("u", "c")]
    assert f"7 of 9 rows cannot be used and are dropped: {reasons}" in capsys.readouterr().err
    with pytest.raises(ValueError, match="none of the 1 rows can be used"):
        prepared(tmp_path, "user_id,item_id,timestamp\nu,z,1\n", drop_invalid=True)


def test_items_that_cannot_be_used_are_dropped_with_their_interactions(tmp_path: Path) -> None:
    items = "item_id,text\na,A\n,none\nb,\na,again\nc,C\n"
    log = "user_id,item_id,timestamp\nu,a,1\nu,b,2\nu,c,3\n"
    with pytest.raises(ValueError, match="3 of 5 rows cannot be used"):
        prepared(tmp_path, log, items)
    assert prepared(tmp_path, log, items, drop_invalid=True) == (["A", "C"], [("u", "a"), ("u", "c")])


@pytest.mark.parametrize(
    ("in_log", "in_items", "difference"),
    [
        ("6", "006", "leading zeros"),
        ("006", "6", "leading zeros"),
        ("6.0", "6", "'.0' at the end"),
        ("6", "6.0", "'.0' at the end"),
        ("lamp ", "lamp", "spaces around it"),
        ("lamp", "lamp ", "spaces around it"),
        ("caf\u00e9", "cafe\u0301", "the Unicode form of its letters"),
        ("cafe\u0301", "caf\u00e9", "the Unicode form of its letters"),
        ("Lamp", "lamp", "upper and lower case"),
    ],
)
def test_an_unknown_id_that_differs_in_its_form_only_is_explained(
    tmp_path: Path, in_log: str, in_items: str, difference: str
) -> None:
    with pytest.raises(
        ValueError, match=f"The catalogue has '{in_items}', which differs only by {difference}"
    ):
        prepared(tmp_path, f"user_id,item_id,timestamp\nu,{in_log},1\n", f"item_id,text\n{in_items},A\n")


def test_repeated_rows_are_dropped_unless_they_are_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = "user_id,item_id,timestamp\nu,a,1\nu,a,1\nu,a,2\nv,a,1\nu,a,1\n"
    assert prepared(tmp_path, log)[1] == [("u", "a"), ("u", "a"), ("v", "a")]
    assert (
        "2 of 5 rows repeat the user, item and time of an earlier row and are dropped"
        in capsys.readouterr().err
    )
    assert len(prepared(tmp_path, log, keep_duplicates=True)[1]) == 5
    assert "rows repeat" not in capsys.readouterr().err


def test_interactions_with_a_low_rating_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = "userId,movieId,rating,timestamp\nu,a,4,1\nu,b,3.5,2\nu,c,,3\nv,c,5,4\n"
    assert len(prepared(tmp_path, log)[1]) == 4
    assert prepared(tmp_path, log, min_rating=4)[1] == [("u", "a"), ("v", "c")]
    assert "2 of 4 interactions are not rated 4 or more and left out" in capsys.readouterr().err
    assert (
        len(prepared(tmp_path, log.replace("rating", "liked"), min_rating=4, rating_column="liked")[1]) == 2
    )
    german = log.replace("3.5", "4.5").replace(",", ";").replace(".", ",")
    assert prepared(tmp_path, german, min_rating=4.5)[1] == [("u", "b"), ("v", "c")]
    with pytest.raises(ValueError, match=r"lacks rating; .* with --rating-column"):
        prepared(tmp_path, log.replace("rating", "liked"), min_rating=4)
    with pytest.raises(ValueError, match="no rating is 6 or higher; the highest is 5"):
        prepared(tmp_path, log, min_rating=6)
    unrated = re.sub(r"(?<=,)[\d.]+(?=,)", "nan", log)
    with pytest.raises(ValueError, match="no rating is 6 or higher; there are none"):
        prepared(tmp_path, unrated, min_rating=6)


def test_ratings_that_are_missing_or_no_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = "user_id,item_id,rating,timestamp\nu,a, 4 ,1\n\nu,b,nan,2\nu,c,good,3\nv,c,inf,4\nv,b,,5\n"
    reason = "2 have a rating that is not a number (the first is 'good' in line 5)"
    with pytest.raises(ValueError, match="2 of 3 rows cannot be used: ") as caught:
        prepared(tmp_path, log, min_rating=4)
    assert reason in str(caught.value)
    capsys.readouterr()
    assert prepared(tmp_path, log, min_rating=4, drop_invalid=True)[1] == [("u", "a")]
    said = capsys.readouterr().err
    assert "2 of 5 interactions are not rated 4 or more and left out" in said
    assert reason in said


@pytest.mark.parametrize(
    ("ratings", "kept"),
    [
        ([float("nan"), 5.0, 1.0, None, 4.0], [1, 4]),
        ([True, False, True, True, False], [0, 2, 3]),
        ([[1]] * 5, "rating must hold numbers, not List"),
        ([date(2020, 1, 1)] * 5, "rating must hold numbers, not Date"),
    ],
)
def test_ratings_of_other_types(tmp_path: Path, ratings: list[Any], kept: list[int] | str) -> None:
    log = {**LOG, "rating": ratings}
    files = CustomFiles(write(tmp_path / "log.parquet", log), write(tmp_path / "items.csv", ITEMS))
    options = CustomOptions(min_rating=1 if ratings[0] is True else 4)
    if isinstance(kept, str):
        with pytest.raises(ValueError, match=kept):
            load_custom(files, options=options)
    else:
        times = load_custom(files, options=options)[1].log["timestamp"].to_list()
        assert times == [LOG["timestamp"][row] for row in kept]


def test_texts_are_made_of_all_fields_that_describe_the_items(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = {
        "sku": ["a", "b", "c"],
        "release_year": [1995.0, None, 2001.0],
        "Name": ["Ape", "Bee|Bug", "<b>Cat</b>"],
        "genres": ["Drama|War|X|Y", "(no genres listed)", None],
        "tags": [["x", "y"], [], ["z"]],
        "imdbId": [1, 2, 3],
        "url": ["http://a", "http://b", None],
    }
    log = {"user_id": ["u"], "sku": ["a"], "timestamp": [1]}
    files = CustomFiles(write(tmp_path / "log.csv", log), write(tmp_path / "items.parquet", items))
    catalog, _ = load_custom(files, options=CustomOptions(item_column="sku"))
    assert catalog.items["text"].to_list() == [
        "Ape; release year: 1995; genres: Drama, War, X, Y; tags: x, y",
        "Bee|Bug",
        "Cat; release year: 2001; tags: z",
    ]
    assert catalog.titles() == ["Ape", "Bee|Bug", "Cat"]
    assert (
        "made with the template '{Name}; release year: {release_year}; genres: {genres}; tags: {tags}'"
        in (capsys.readouterr().err)
    )
    catalog, _ = load_custom(files, "{Name}; Of {release_year}", CustomOptions(item_column="sku"))
    assert catalog.items["text"].to_list() == ["Ape; Of 1995", "Bee|Bug", "Cat; Of 2001"]


def test_texts_of_new_items_are_made_as_those_of_the_training(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", {"user_id": ["u"], "item_id": ["a"], "timestamp": [1]})
    items = {"item_id": ["a"], "Name": ["Ape"], "brand": ["X"], "year": [1995.0]}
    catalog, _ = load_custom(CustomFiles(log, write(tmp_path / "items.csv", items)))
    assert catalog.template == "{Name}; brand: {brand}; year: {year}"
    types = field_types(catalog.items)
    tables: list[tuple[dict[str, list[Any]], list[str]]] = [
        ({"item_id": ["b"], "title": ["Bee"], "brand": ["Y"], "color": ["red"]}, ["Bee; brand: Y"]),
        ({"item_id": ["b"], "title": ["Bee"]}, ["Bee"]),
        ({"item_id": ["b"], "title": ["Bee"], "text": ["A bee"]}, ["A bee"]),
        ({"item_id": ["b"], "Name": ["Bee"], "brand": ["Y"], "year": [2001]}, ["Bee; brand: Y; year: 2001"]),
    ]
    for table, texts in tables:
        new = read_new_items(write(tmp_path / "new.csv", table), types, catalog.template)
        assert new["text"].to_list() == texts


def test_titles_that_are_lists_or_count_as_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = write(tmp_path / "log.csv", {"user_id": ["u"], "item_id": ["a"], "timestamp": [1]})
    lists = write(tmp_path / "a.jsonl", {"item_id": ["a", "b"], "title": [["x", "X"], ["y"]]})
    catalog, _ = load_custom(CustomFiles(log, lists))
    assert catalog.titles() == ["x, X", "y"]
    assert "count as none" not in capsys.readouterr().err
    words = {"item_id": list("abcd"), "title": ["None", "N/A", "", "Nun"], "genre": ["Drama"] * 4}
    catalog, _ = load_custom(CustomFiles(log, write(tmp_path / "b.csv", words)))
    assert catalog.titles() == ["a", "b", "c", "Nun"]
    assert "2 of the titles count as none: 'None', 'N/A'" in capsys.readouterr().err


def test_the_files_of_movielens_need_no_preparation(tmp_path: Path) -> None:
    log = "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,4.0,964981247\n2,3,1,1445714835\n"
    items = 'movieId,title,genres\n1,Toy Story (1995),Adventure|Animation\n3,"Men, The (1995)",(no genres listed)\n'
    texts, pairs = prepared(tmp_path, log, items)
    assert texts == ["Toy Story (1995); genres: Adventure, Animation", "Men, The (1995)"]
    assert pairs == [("1", "1"), ("1", "3"), ("2", "3")]


def test_movielens_latest_small_needs_no_preparation(shared_data: Path) -> None:
    folder = shared_data / "ml-latest-small"
    files = CustomFiles(folder / "ratings.csv", folder / "movies.csv")
    catalog, interactions = load_custom(files, options=CustomOptions(drop_invalid=True))
    assert (len(catalog), len(interactions)) == (9742, 100_835)  # one rating is of an unlisted movie
    assert catalog.items["text"][0] == (
        "Toy Story (1995); genres: Adventure, Animation, Children, Comedy, Fantasy"
    )


def test_whole_numbers_in_floats_are_ids(tmp_path: Path) -> None:
    log = {"user_id": [1.0, 2.0, None], "item_id": [7.0, 8.0, 7.0], "timestamp": [1, 2, 3]}
    files = CustomFiles(
        write(tmp_path / "log.parquet", log),
        write(tmp_path / "items.csv", {"item_id": [7, 8], "text": ["A", "B"]}),
    )
    _, interactions = load_custom(files, options=CustomOptions(drop_invalid=True))
    assert interactions.log.select("user_id", "item_id").rows() == [("1", "7"), ("2", "8")]


def test_the_files_of_a_folder_have_any_suffix(tmp_path: Path) -> None:
    (tmp_path / "Log.TSV").write_text("user_id\titem_id\ttimestamp\nu\ta\t1\n")
    (tmp_path / "items.json").write_text('[{"id": "a", "text": "A"}]')
    catalog, interactions = load_custom(CustomFiles.in_folder(tmp_path))
    assert (len(catalog), len(interactions)) == (1, 1)


def test_the_files_of_a_german_shop_need_no_preparation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, items = tmp_path / "bestellungen.csv", tmp_path / "artikel.csv"
    log.write_bytes(
        "Kundennr.;Artikelnummer;Kaufdatum;Preis\r\n"
        "K1;00007;16.05.2024 12:30;1.299,00\r\n"
        "K1;00008;5.1.2024;9,99\r\n"
        "K2;00009;31.12.2023 08:00:15;3\r\n".encode("cp1252")
    )
    items.write_bytes(
        "Artikelnummer;Bezeichnung;Preis;Hersteller\r\n"
        "00007;Käsemühle;1.299,00;Höfe\r\n00008;;9,99;Groß & Söhne\r\n00009;Öl;3;n/a\r\n".encode("cp1252")
    )
    catalog, interactions = load_custom(CustomFiles(log, items))
    assert catalog.titles() == ["Käsemühle", "00008", "Öl"]
    assert catalog.items["Preis"].to_list() == [1299.0, 9.99, 3.0]
    assert interactions.log["timestamp"].to_list() == [1_715_862_600, 1_704_412_800, 1_704_009_615]
    said = " ".join(capsys.readouterr().err.split())
    assert "Preis has decimal commas, read as numbers" in said
    assert "user_id from Kundennr., item_id from Artikelnummer, timestamp from Kaufdatum" in said
    dataset = Dataset.from_interactions(catalog, interactions)
    assert matching("Preis < 10", Fields(catalog.items)).tolist() == [False, True, True]
    assert dataset.sequences.of_user(0).tolist() == [1, 0]


@pytest.mark.parametrize("values", [["38,40", "38,40,42"], ["1,234", "2,345"], ["Hasbro, Inc.", "9,99"]])
def test_other_commas_are_no_decimal_commas(tmp_path: Path, values: list[str]) -> None:
    items = {"item_id": ["a", "b", "c"], "title": ["A", "B", "C"], "sizes": [*values, None]}
    files = CustomFiles(write(tmp_path / "l.csv", LOG), write(tmp_path / "i.parquet", items))
    assert load_custom(files)[0].items["sizes"].to_list() == [*values, None]


@pytest.mark.parametrize(
    ("columns", "time"),
    [
        (["ordered_at", "candidate", "format"], "ordered_at"),
        (["lastVisitTime", "update"], "lastVisitTime"),
        (["added on"], "added on"),
        (["Verkaufsdatum"], "Verkaufsdatum"),
        (["start_time", "end_time"], None),
        (["update", "combat", "season"], None),
    ],
)
def test_the_only_column_that_is_named_like_a_time_is_the_time(columns: list[str], time: str | None) -> None:
    assert find_column(["user_id", *columns], "timestamp") == time
