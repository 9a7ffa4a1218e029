"""No damage of a Parquet file ends the process that reads it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rqrec.data.parquet_counts import check_counts, counts
from rqrec.data.tables import open_table

ROWS = 3000
# Reads the file with each byte changed in two ways. Without a check of the headers, this process is aborted.
READ_DAMAGED = """
import sys
from contextlib import suppress
from pathlib import Path
from rqrec.data.tables import open_table, read_parquet

path = Path(sys.argv[1])
content = path.read_bytes()
for position in range(len(content)):
    for change in (1, 127):
        damaged = bytearray(content)
        damaged[position] ^= change
        path.write_bytes(damaged)
        with suppress(ValueError, OSError):
            open_table(path).collect()
        with suppress(ValueError, OSError):
            read_parquet(path)
"""


def tables() -> dict[str, pl.DataFrame]:
    return {
        "flat": pl.DataFrame({"user": [f"u{n % 7}" for n in range(ROWS)], "time": range(ROWS)}),
        "lists": pl.DataFrame({"user": ["a", None], "history": [["x", None], ["y"]], "times": [[1], [2, 3]]}),
        "structs": pl.DataFrame({"one": [{"a": 1, "b": [True]}, None], "day": [None, 1.5]}),
        "empty": pl.DataFrame({"user": []}, schema={"user": pl.String}),
    }


@pytest.mark.parametrize("compression", ["uncompressed", "snappy", "gzip", "lz4", "zstd"])
@pytest.mark.parametrize("name", tables())
def test_the_counts_of_valid_files_are_found(tmp_path: Path, name: str, compression: Any) -> None:
    table, path = tables()[name], tmp_path / "table.parquet"
    table.write_parquet(path, compression=compression, row_group_size=1000, data_page_size=512)
    check_counts(path)
    assert open_table(path).collect().equals(table)
    found = list(counts(path.read_bytes()))
    assert sum(count for what, count in found if what == "values") >= 2 * len(table) * len(table.columns)


@pytest.mark.parametrize("name", ["lists", "structs"])
def test_no_damage_of_one_byte_aborts_the_process(tmp_path: Path, name: str) -> None:
    path = tmp_path / "table.parquet"
    tables()[name].write_parquet(path)
    done = subprocess.run(
        [sys.executable, "-c", READ_DAMAGED, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_negative_count_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    tables()["lists"].write_parquet(path)
    content, refused = path.read_bytes(), []
    for position in range(100):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        try:
            check_counts(path)
        except ValueError as error:
            refused.append(str(error))
    assert f"{path} cannot be read (one of its headers counts -3 values). Is it complete?" in refused


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1" * 3, b"\xff" * 100 + b"\x30\0\0\0PAR1", b"a,b\n1,2\n"]
)
def test_what_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"table\.parquet cannot be read"):
        open_table(path).collect()


@pytest.mark.parametrize("footer", [b"\x19\xf7" + b"\xff" * 8 + b"\x7f", b"\x1c" * 100_000])
def test_a_footer_of_endless_or_deep_lists_is_refused_at_once(tmp_path: Path, footer: bytes) -> None:
    path = tmp_path / "table.parquet"  # a list of 2^63 doubles, and structs in structs
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ValueError, match=r"table\.parquet cannot be read"):
        open_table(path)
