"""Replacing a folder: whoever reads sees one whole version, and no crash loses one."""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from rqrec.core import replace
from rqrec.core.artifact import MANIFEST, create, find, read_manifest, read_version, reuse
from tests.faults.changes import signal_at_change

PARTS = ("a.txt", "b.txt")


def write(folder: Path, text: str) -> Path:
    with create(folder, "dataset", settings={"text": text}) as target:
        for name in PARTS:
            (target / name).write_text(text)
    return folder


def text_of(folder: Path) -> str:
    """The text in all parts and in the manifest of one version."""

    def read(found: Path) -> set[str]:
        return {(found / name).read_text() for name in PARTS} | {read_manifest(found).settings["text"]}

    (text,) = read_version(folder, read)
    return text


def in_child(run: Callable[[], None]) -> int:
    """The exit status of a forked process that runs this."""
    child = os.fork()
    if not child:
        try:
            run()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(step: int, folder: Path, run: Callable[[], object]) -> bool:
    """Run in a process that is killed before the change number `step` inside `folder`; whether it came so far."""

    def watched() -> None:
        signal_at_change(folder, step, signal.SIGKILL)
        run()

    return in_child(watched) == -signal.SIGKILL


def test_a_kill_at_any_step_leaves_the_old_or_the_new_version_and_the_next_start_heals(
    tmp_path: Path,
) -> None:
    step, seen = 0, []
    while True:
        folder = write(tmp_path / f"{step}" / "run" / "a", "old")
        was_killed = killed_at(step, folder.parent, partial(write, folder, "new"))
        seen.append(text_of(find(folder.parent, "dataset")))
        assert os.listdir(folder.parent) == ["a"]
        if not was_killed:
            break
        write(folder, "newest")
        assert text_of(folder) == "newest"
        assert os.listdir(folder.parent) == ["a"]
        step += 1
    assert step > 15
    assert set(seen) == {"old", "new"}
    assert seen == sorted(seen, reverse=True)  # once the new version is whole, it stays


def test_a_kill_while_healing_loses_nothing(tmp_path: Path) -> None:
    step = 0
    while True:
        parent = tmp_path / f"{step}"
        write(parent / "a", "new").rename(parent / f".a.{replace.NEW}")
        write(parent / "b", "old").rename(parent / f".a.{replace.OLD}")
        was_killed = killed_at(step, parent, partial(replace.heal, parent / "a"))
        assert text_of(parent / "a") == "new"
        assert os.listdir(parent) == ["a"]
        if not was_killed:
            break
        step += 1
    assert step > 3


def test_a_kill_while_removing_leaves_all_or_nothing_and_the_next_removal_cleans_up(tmp_path: Path) -> None:
    step, seen = 0, []
    while True:
        folder = write(tmp_path / f"{step}" / "a", "old")
        was_killed = killed_at(step, folder.parent, partial(replace.remove, folder))
        if folder.exists():
            assert text_of(folder) == "old"
        seen.append(folder.exists())
        replace.remove(folder)
        assert os.listdir(folder.parent) == []
        if not was_killed:
            break
        step += 1
    assert step > len(PARTS)
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {True, False}


def test_a_stage_finds_what_an_interrupted_replacement_left(tmp_path: Path) -> None:
    write(tmp_path / "a", "old").rename(tmp_path / f".a.{replace.OLD}")
    assert reuse(tmp_path / "a", "dataset", {"text": "old"}, {})


def test_readers_see_whole_versions_while_a_folder_is_replaced(tmp_path: Path) -> None:
    folder = write(tmp_path / "run" / "a", "0")

    def replace_often() -> None:
        for version in range(1, 60):
            write(folder, str(version))

    def read_often() -> None:
        last = 0
        while last < 59:
            found = int(text_of(find(folder.parent, "dataset")))
            assert found >= last
            read_manifest(folder, "dataset", verify=True)
            last = found

    readers = []
    for _ in range(3):
        readers.append(os.fork())
        if not readers[-1]:
            os._exit(in_child(read_often))
    assert in_child(replace_often) == 0
    assert [os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1]) for reader in readers] == [0, 0, 0]
    assert os.listdir(folder.parent) == ["a"]


@pytest.mark.parametrize("given", ["run", "run/a"])
def test_an_artefact_is_found_in_the_moment_in_which_it_has_no_name(tmp_path: Path, given: str) -> None:
    folder = write(tmp_path / "run" / "a", "0")
    with ThreadPoolExecutor() as pool:
        with replace.locked(folder.parent):
            folder.rename(tmp_path / "away")
            found = pool.submit(find, tmp_path / given, "dataset")
            time.sleep(0.2)
            (tmp_path / "away").rename(folder)
        assert found.result(10) == folder


def test_a_stage_finds_its_result_in_the_moment_in_which_it_has_no_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "run" / "a", "0")
    with ThreadPoolExecutor() as pool:
        with replace.locked(folder.parent):
            folder.rename(tmp_path / "away")
            found = pool.submit(reuse, folder, "dataset", {"text": "0"}, {})
            time.sleep(0.2)
            (tmp_path / "away").rename(folder)
        assert found.result(10)


def test_a_writer_finds_what_it_has_just_written_inside_its_folder(tmp_path: Path) -> None:
    """It holds the lock of that folder itself."""
    with replace.replaced(tmp_path / "a") as target:
        inside = write(target / "inside", "0")
        assert find(target, "dataset") == find(inside, "dataset") == inside


def test_several_writers_end_with_one_whole_version(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    writers = []
    for writer in range(3):
        writers.append(os.fork())
        if not writers[-1]:
            os._exit(in_child(lambda writer=writer: [write(folder, f"{writer}") for _ in range(10)] and None))
    assert [os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]) for writer in writers] == [0, 0, 0]
    assert text_of(folder) in {"0", "1", "2"}
    assert os.listdir(tmp_path) == ["a"]


def test_the_partial_folder_of_a_living_writer_is_not_removed(tmp_path: Path) -> None:
    with create(tmp_path / "a", "dataset", settings={"text": "slow"}) as target:
        write(tmp_path / "a", "quick")
        assert target.is_dir()
        for name in PARTS:
            (target / name).write_text("slow")
    assert text_of(tmp_path / "a") == "slow"


def test_a_link_to_an_artefact_stays_a_link(tmp_path: Path) -> None:
    write(tmp_path / "disk" / "a", "old")
    (tmp_path / "a").symlink_to(tmp_path / "disk" / "a")
    write(tmp_path / "a", "new")
    assert (tmp_path / "a").is_symlink()
    assert text_of(tmp_path / "disk" / "a") == "new"


def test_hidden_folders_of_others_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / ".a.old").mkdir()
    (tmp_path / ".a.1.tmp").mkdir()
    write(tmp_path / "a", "x")
    assert sorted(os.listdir(tmp_path)) == [".a.1.tmp", ".a.old", "a"]


def test_a_folder_that_cannot_be_healed_is_of_no_concern_to_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / f".a.{replace.NEW}").mkdir()
    (tmp_path / "a").symlink_to("a")
    write(tmp_path / "b", "text")
    assert find(tmp_path, "dataset") == tmp_path / "b"
    with pytest.raises(OSError, match="Too many levels"):
        replace.heal(tmp_path / "a")


def test_an_error_of_the_reader_itself_is_passed_on(tmp_path: Path) -> None:
    write(tmp_path / "a", "x")

    def fail(folder: Path) -> None:
        raise ValueError("no number")

    with pytest.raises(ValueError, match="no number"):
        read_version(tmp_path / "a", fail)
    with pytest.raises(FileNotFoundError, match=MANIFEST):
        read_manifest(tmp_path / "nowhere")


def test_a_file_system_without_locks_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(45 if sys.platform == "darwin" else 95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    write(tmp_path / "a", "old")
    assert text_of(write(tmp_path / "a", "new")) == "new"


def test_a_folder_may_be_replaced_inside_one_that_is_being_written(tmp_path: Path) -> None:
    with replace.replaced(tmp_path / "outer") as outer:
        for text in ("first", "second"):
            with replace.replaced(outer / "inner") as inner:
                (inner / "a").write_text(text)
        replace.heal(outer / "inner")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "outer",
        "outer/inner",
        "outer/inner/a",
    ]
    assert (tmp_path / "outer/inner/a").read_text() == "second"
