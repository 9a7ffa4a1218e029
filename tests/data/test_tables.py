"""One log in every form in which people have it is read as the same table."""

import codecs
import gzip
import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rqrec.data.tables import open_table, tables_named

ROWS = [("zoë", "a", "30"), ("v", 'the "b", big', "5"), ("w", "line\nbreak", "7")]
NAMES = ("user_id", "item_id", "timestamp")


def csv_text(separator: str = ",", end: str = "\n", *, header: bool = True) -> str:
    def field(value: str) -> str:
        escaped = value.replace('"', '""')
        return f'"{escaped}"' if set(value) & set('",;|\t\n') else value

    rows = [NAMES, *ROWS] if header else ROWS
    return "".join(separator.join(map(field, row)) + end for row in rows)


JSON_ROWS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("log.csv", csv_text().encode(), ""),
        ("LOG.CSV", csv_text().encode(), ""),
        ("log.tsv", csv_text("\t").encode(), ""),
        ("log.csv", csv_text(";").encode(), "separated by ';'"),
        ("log.csv", csv_text("\t").encode(), "separated by tabs"),
        ("log.csv", b"sep=;\n" + csv_text(";").encode(), "its first line names the separator"),
        (
            "log.csv",
            b"\xef\xbb\xbfSEP=,\r\n" + csv_text().encode(),
            "UTF-8 with a byte-order mark; CRLF line ends; its first line names the separator",
        ),
        ("log.csv", csv_text("|").encode(), "separated by '|'"),
        ("log.tsv", csv_text().encode(), "separated by ','"),
        ("log.csv", csv_text(end="\r\n").encode(), "CRLF line ends"),
        ("log.csv", csv_text(end="\r").replace("line\n", "line\r").encode(), ""),
        ("log.csv", csv_text().encode("utf-16"), "UTF-16"),
        ("log.csv", csv_text(";", "\r\n").encode("utf-16-le"), "UTF-16; CRLF line ends; separated by ';'"),
        ("log.csv", csv_text().encode("utf-32"), "UTF-32"),
        ("log.csv", csv_text().encode("utf-8-sig"), "UTF-8 with a byte-order mark"),
        ("log.csv", csv_text().encode("cp1252"), "Windows-1252 text, as it is not UTF-8"),
        ("log.csv.gz", gzip.compress(csv_text().encode()), ""),
        ("log.CSV.GZ", gzip.compress(csv_text(";").encode("utf-16")), "UTF-16; separated by ';'"),
        ("log.csv", gzip.compress(csv_text().encode()), ""),
        ("log.csv", csv_text(header=False).encode(), "no header"),
        ("log.csv", b"0,1,2\n" + csv_text(header=False).encode(), "its header is only numbers"),
        ("log.jsonl", "\n".join(map(json.dumps, JSON_ROWS)).encode(), ""),
        ("log.jsonl.gz", gzip.compress("\n\n".join(map(json.dumps, JSON_ROWS)).encode()), ""),
        (
            "log.ndjson",
            codecs.BOM_UTF8 + "\n".join(map(json.dumps, JSON_ROWS)).encode(),
            "UTF-8 with a byte-order mark",
        ),
        ("log.json", json.dumps(JSON_ROWS, indent=1).encode(), "one JSON list"),
        ("log.jsonl", json.dumps(JSON_ROWS).encode(), "one JSON list"),
        ("log.json", "\n".join(json.dumps(row, indent=1) for row in JSON_ROWS).encode(), ""),
    ],
)
def test_every_form_is_the_same_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    table = open_table(path)
    assert table.collect().rows() == ROWS
    assert table.columns == (list(NAMES) if table.has_header else ["column_1", "column_2", "column_3"])
    assert "; ".join(table.notes) == said
    table.say()
    assert capsys.readouterr().err == (f"{path}: {said}.\n" if said else "")


def test_the_place_of_a_row_is_its_line_in_an_editor(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("\n" + csv_text() + "\nx,y,9\n")
    assert [open_table(path).place(row) for row in range(5)] == [
        "line 3",
        "line 4",
        "line 5",
        "line 7",
        "line 8",
    ]
    path.write_text(csv_text(header=False))
    assert open_table(path).place(2) == "line 3"
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n\n{"a": NaN}\n{"a": 3}\n')
    assert [open_table(path).place(row) for row in range(3)] == ["line 1", "line 3", "line 4"]
    path.write_text('[{"a": 1}, {"a": 2}]')
    assert open_table(path).place(1) == "row 2"
    pl.DataFrame({"a": [1, 2]}).write_parquet(tmp_path / "log.parquet")
    assert open_table(tmp_path / "log.parquet").place(1) == "row 2"


def test_nan_in_json_is_a_missing_value_and_mixed_types_are_text(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"id": 1, "price": NaN, "tags": ["x"]}\n{"id": "b", "price": 2.5, "tags": "y"}\n')
    assert open_table(path).collect().rows() == [("1", None, '["x"]'), ("b", 2.5, "y")]


def test_of_columns_with_one_name_the_first_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id,text,text,brand\na,A,B,C\n")
    table = open_table(path)
    table.say()
    assert "several columns are named text, and the first counts." in capsys.readouterr().err
    assert table.collect().row(0, named=True) == {"item_id": "a", "text": "A", "brand": "C"}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".csv.gz"])
@pytest.mark.parametrize(
    ("begin", "kind"),
    [(b"PK\x03\x04", "a ZIP archive"), (b"PAR1\x15", "a Parquet table"), (b"\x1f\x8b", "gzip data within")],
)
def test_what_is_no_text_is_called_what_it_is(suffix: str, begin: bytes, kind: str, tmp_path: Path) -> None:
    path, content = tmp_path / f"log{suffix}", begin + bytes(range(256))
    if begin == b"\x1f\x8b" or suffix.endswith(".gz"):
        content = gzip.compress(content)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"log{suffix} holds {kind}.*, not text: unpack or export it first"):
        open_table(path)


def test_parquet_may_be_compressed(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["a"]}).write_parquet(tmp_path / "items.parquet")
    packed = tmp_path / "items.parquet.gz"
    packed.write_bytes(gzip.compress((tmp_path / "items.parquet").read_bytes()))
    assert open_table(packed).collect().rows() == [("a",)]


def test_a_column_of_one_csv_file_needs_no_separator(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id\na\nb\n")
    assert open_table(path).collect().rows() == [("a",), ("b",)]


def test_tables_are_found_by_name_in_any_case(tmp_path: Path) -> None:
    for name in ("Log.CSV.gz", "log.txt", "logs.csv", "items.json"):
        (tmp_path / name).write_text("")
    assert [path.name for path in tables_named(tmp_path, "log")] == ["Log.CSV.gz"]
    assert tables_named(tmp_path / "none", "log") == []


@pytest.mark.parametrize("name", ["log.csv.gz", "log.jsonl.gz", "log.parquet"])
def test_a_small_file_that_holds_more_than_memory_does_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rqrec.data.tables.memory_of_machine", lambda: 2**22)
    path = tmp_path / name
    path.write_bytes(gzip.compress(b'{"user_id": 1}\n' + bytes(2**23)))
    with pytest.raises(ValueError, match=r"holds more than 0\.0 GB of data, which is half of the memory"):
        open_table(path)


@pytest.mark.parametrize("kind", [pl.Date, pl.Datetime("ms"), pl.Datetime("us", "UTC"), pl.List(pl.Date)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_date_of_no_year_that_is_known_is_refused_by_name(kind: Any, sign: int, tmp_path: Path) -> None:
    values = [[sign * 2**30]] if kind == pl.List(pl.Date) else [sign * (2**30 if kind == pl.Date else 2**62)]
    whole = pl.List(pl.Int32) if kind == pl.List(pl.Date) else pl.Int32 if kind == pl.Date else pl.Int64
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user_id": ["a"], "when": pl.Series(values, dtype=whole).cast(kind)}).write_parquet(path)
    with pytest.raises(ValueError, match=r"the column when has a date of -?[\d,]+ days .* years 1 to 9999"):
        open_table(path)


def test_dates_from_the_first_to_the_last_year_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    table = pl.DataFrame(
        {"when": [datetime(1, 1, 3), None, datetime(9999, 12, 30)], "on": [[], None, [date.max]]}
    )
    table = table.with_columns(pl.col("on").list.eval(pl.element() - pl.duration(days=1)))
    table.write_parquet(path)
    assert open_table(path).collect().equals(table)


def test_lines_are_counted_from_the_one_that_names_the_separator(tmp_path: Path) -> None:
    (path := tmp_path / "log.csv").write_text("sep=,\nuser_id,item_id\nu,a\nv,b\n")
    assert [open_table(path).place(row) for row in (0, 1)] == ["line 3", "line 4"]
    path.write_text("sep=,\nuser_id,item_id\nu,a\nv,b,c\n")
    with pytest.raises(ValueError, match="line 4 has 3 fields, but line 2 has 2"):
        open_table(path).collect()


def test_a_separator_at_the_end_of_lines_is_to_be_removed(tmp_path: Path) -> None:
    (path := tmp_path / "log.csv").write_text("user_id,item_id\nu,a,\nv,b,\n")
    with pytest.raises(ValueError, match=r"line 2 has 3 fields.*Remove ',' from the end of its lines"):
        open_table(path).collect()


@pytest.mark.parametrize("is_list", [False, True])
def test_a_name_that_a_json_object_repeats_is_refused(is_list: bool, tmp_path: Path) -> None:
    rows = ['{"user_id": "u", "item_id": "a"}', '{"user_id": "u", "item_id": "b", "item_id": "c"}']
    text = f"[{', '.join(rows)}]" if is_list else "\n".join(rows)
    (path := tmp_path / "log.json").write_text(text)
    with pytest.raises(ValueError, match="'item_id' occurs more than once in an object"):
        open_table(path)


def test_columns_of_json_keep_their_order(tmp_path: Path) -> None:
    """polars has them in any order where there are many."""
    names = [f"c{number * 37 % 101}" for number in range(101)]
    later = {"z": 1, "a": 2}
    lines = [json.dumps(dict.fromkeys(names, 1))] * 200 + [json.dumps(later)]
    (path := tmp_path / "items.jsonl").write_text("\n".join(lines))
    assert open_table(path).columns == [*names, "a", "z"]
