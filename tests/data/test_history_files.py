"""Histories and logs in every form in which people have them are read as the same histories."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from rqrec.data.history_files import as_histories, count_rows, input_files, read_histories

HISTORIES = [("u", ["1", "22"]), ("v", []), ("w", ["3"])]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("u.csv", 'user_id,history\nu,"1, 22"\nv,\nw,3\n'),
        ("u.csv", 'user_id,history\nu,"[""1"", 22]"\n\nv,[]\nw,"[""3""]"\n'),
        ("u.csv", "userId;history\nu;['1', '22']\nv;[]\nw;[3]\n"),
        ("u.csv", "userId;history\nu;[1.0, 22.0]\nv;[]\nw;[3]\n"),
        ("U.TSV", "User ID\tHistory\nu\t1,22\nv\t\nw\t3\n"),
        ("u.jsonl", "\n".join(json.dumps({"user_id": u, "history": h}) for u, h in HISTORIES)),
        (
            "u.jsonl",
            '{"user_id": "u", "history": [1.0, 22]}\n{"user_id": "v"}\n{"user_id": "w", "history": [3]}\n',
        ),
        (
            "u.jsonl",
            '{"user_id": "u", "history": ["1", 22]}\n{"user_id": "v", "history": NaN}\n'
            '{"user_id": "w", "history": "3"}',
        ),
        ("u.json", json.dumps([{"user_id": u, "history": h} for u, h in HISTORIES], indent=1)),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_histories(tmp_path: Path, name: str, content: str, compressed: bool) -> None:
    path = tmp_path / (name + ".gz" * compressed)
    path.write_bytes(gzip.compress(content.encode()) if compressed else content.encode())
    (file,) = as_histories(input_files(path), tmp_path / "histories")
    assert read_histories(file, 0, 9).rows() == HISTORIES
    assert read_histories(file, 1, 1).rows() == HISTORIES[1:2]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.csv", "userId,movieId,timestamp\nu,22,5\nu,1,4\nw,3,1\n"),
        ("l.csv", "u;22;5\nu;1;4\nw;3;1\n"),
        (
            "l.jsonl",
            '{"user": "u", "item": 22, "ts": 5}\n{"user": "u", "item": 1.0, "ts": 4}\n'
            '{"user": "w", "item": 3, "ts": 1}\n',
        ),
    ],
)
def test_logs_are_grouped_by_user(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    (file,) = as_histories(input_files(tmp_path), tmp_path / "histories")
    assert read_histories(file, 0, 9).rows() == [HISTORIES[0], HISTORIES[2]]


def test_repeated_rows_of_a_log_are_dropped_as_by_prepare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "l.csv").write_text("user_id,item_id,timestamp\nu,22,5\nu,1,4\nu,22,5\nw,3,1\nu,22,6\n")
    (file,) = as_histories(input_files(tmp_path), tmp_path / "histories")
    assert read_histories(file, 0, 9).rows() == [("u", ["1", "22", "22"]), ("w", ["3"])]
    assert (
        "1 of 5 rows repeat the user, item and time of an earlier row and are dropped"
        in capsys.readouterr().err
    )


def test_parquet_files_of_a_folder_win_and_other_column_names_are_recognised(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_text("no,histories\n")
    users, histories = zip(*HISTORIES, strict=True)
    pl.DataFrame({"Reviewer ID": users, "history": histories}).write_parquet(tmp_path / "u.parquet")
    (file,) = as_histories(input_files(tmp_path), tmp_path / "histories")
    assert read_histories(file, 0, 9).rows() == HISTORIES


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "u.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(ValueError, match=r"u.parquet cannot be read"):
        as_histories([tmp_path / "u.parquet"], tmp_path / "histories")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_path_with_signs_of_a_pattern_is_that_file(tmp_path: Path, suffix: str) -> None:
    for name, user in (("br[1]", "right"), ("br1", "wrong")):
        (tmp_path / name).mkdir()
        table = pl.DataFrame({"user_id": [user], "history": ["1"]})
        write = {".csv": table.write_csv, ".parquet": table.write_parquet, ".jsonl": table.write_ndjson}
        write[suffix](tmp_path / name / f"t[a]{suffix}")
    for source in (tmp_path / "br[1]" / f"t[a]{suffix}", tmp_path / "br[1]"):
        (file,) = as_histories(input_files(source), tmp_path / "br[1]" / "histories[1]")
        assert read_histories(file, 0, count_rows(file))["user_id"].to_list() == ["right"]
