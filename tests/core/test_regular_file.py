"""What is no regular file is refused before it is opened: a pipe would wait for a writer, and a device never end."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rqrec.core.artifact import file_hash, read_json
from rqrec.core.config import configured
from rqrec.core.regular_file import regular_file
from rqrec.data.embeddings import read_vectors
from rqrec.data.history_files import input_files
from rqrec.data.tables import open_table, read_lines
from rqrec.serving.rules import NamedRules
from rqrec.stages.embed import EmbedConfig
from rqrec.tokenizer.saved_tokenizer import read_saved_tokenizer

READERS: dict[str, Callable[[Path], Any]] = {
    "x.csv": open_table,
    "x.parquet": open_table,
    "x.jsonl.gz": open_table,
    "x.txt": read_lines,
    "x.tsv": input_files,
    "x.npy": read_vectors,
    "x.json": read_json,
    "rules.json": NamedRules.read,
    "x.gin": lambda path: configured(EmbedConfig(), ["embed"], [path]),
    "x.pt": read_saved_tokenizer,
    "x": file_hash,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", READERS)
def test_pipes_devices_and_folders_are_refused_by_what_they_are(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(OSError, match=rf"{name} is a pipe, but must be a regular file"):
        READERS[name](path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(OSError, match=rf"{name} is a device, but must be a regular file"):
        READERS[name](path)


def test_folders_and_broken_links_are_named(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=r"is a folder: give a file\."):
        open_table(tmp_path)
    (tmp_path / "x.csv").symlink_to("gone.csv")
    with pytest.raises(FileNotFoundError, match=r"x\.csv is a link to gone\.csv, which does not exist"):
        open_table(tmp_path / "x.csv")
    with pytest.raises(FileNotFoundError, match=r"There is no file .*nothing\.csv"):
        open_table(tmp_path / "nothing.csv")


def test_links_to_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a\n")
    (tmp_path / "y.txt").symlink_to("x.txt")
    assert regular_file(tmp_path / "y.txt") == tmp_path / "y.txt"
    assert read_lines(tmp_path / "y.txt") == ["a"]
