from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rqrec.data.dataset import Dataset
from rqrec.data.sources.custom import CustomFiles, load_custom
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
    with pytest.raises(ValueError, match=r"1 item ids that are not among the items \(the first is '3'\)"):
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
        ({"timestamp": [1, 2, 3, -4, 5]}, r"1 rows have no valid timestamp \(the first is row 3: -4\)"),
        ({"timestamp": [1, 2, None, 4, 5]}, r"1 rows have no valid timestamp \(the first is row 2: None\)"),
        ({"timestamp": ["1", "2", "soon", "4", ""]}, r"2 rows have .* \(the first is row 2: 'soon'\)"),
        ({"timestamp": [True] * 5}, "timestamp must hold numbers, dates or times, not Boolean"),
        (
            {"timestamp": [1700000000, 1700000001000, 1700000002, 1700000003, 1700000004]},
            r"log.parquet: timestamp mixes seconds \(row 0: 1700000000\) and milliseconds \(row 1: 1700000001000\)",
        ),
        ({"user_id": ["u", None, "u", "", "u"]}, r"2 rows have no user_id \(the first is row 1\)"),
        ({"item_id": [1.0, 2.0, 3.0, 4.0, 5.0]}, "item_id must hold strings or whole numbers, not Float64"),
        (
            {"item_id": ["a", "b", "zz", "y", "a"]},
            r"2 item ids that are not among the items \(the first is 'zz'",
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
            {"text": None},
            r"has no column text; its columns are item_id, title, brand. Add one, or give a template",
        ),
        ({"item_id": ["a", "b", "a"]}, r"items.jsonl: Item id 'a' occurs more than once"),
        ({"text": ["x", "nan", "y"]}, r"1 items have no text \(the first is 'b'\)"),
        ({"item_id": None}, "lacks item_id"),
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
        ("log.csv", b"user_id,item_id,timestamp\nu,a,1\nv\xe9,b,2\n", "log.csv is not UTF-8 text"),
        ("log.csv", b"", r"log.csv cannot be read"),
        ("log.parquet", b"PAR1 no more", r"log.parquet cannot be read"),
        ("items.jsonl", b'{"item_id": "a", "text"', r"items.jsonl cannot be read"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    paths = {"log": write(tmp_path / "log.csv", LOG), "items": write(tmp_path / "items.csv", ITEMS)}
    path = tmp_path / name
    path.write_bytes(content)
    paths[path.stem] = path
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
    with pytest.raises(ValueError, match=r"the suffix '.txt'; allowed are .parquet, .csv, .jsonl"):
        load_custom(CustomFiles(log, tmp_path / "items.txt"))
