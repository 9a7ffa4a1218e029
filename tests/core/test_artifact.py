import errno
import os
import resource
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rqrec.core.artifact import (
    FORMAT_VERSION,
    atomic_write,
    check_inputs,
    check_outside_artifacts,
    create,
    find,
    find_input,
    format_version_of,
    is_current,
    read_json,
    read_manifest,
    reuse,
    write_json,
)


def make(folder: Path, kind: str = "dataset", text: str = "x", **options: object) -> Path:
    with create(folder, kind, **options) as target:  # type: ignore[arg-type]
        (target / "file.txt").write_text(text)
    return folder


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("manifest", ["", "{", "null", "[1]", '{"artifact_type": 5}', '{"files": {}}'])
@pytest.mark.parametrize("force", [False, True])
def test_a_folder_with_a_damaged_manifest_is_not_replaced(tmp_path: Path, manifest: str, force: bool) -> None:
    folder = make(tmp_path / "a")
    (folder / "manifest.json").write_text(manifest)
    with pytest.raises(ValueError, match="Delete the folder"):
        reuse(folder, "dataset", {}, {}, force=force)
    with pytest.raises(ValueError, match="Delete the folder"):
        make(folder, text="y")
    assert (folder / "file.txt").read_text() == "x"


def test_an_artefact_records_its_type_settings_and_inputs(tmp_path: Path) -> None:
    make(tmp_path / "a", settings={"seed": 1}, inputs={"raw": "h"}, metrics={"items": 3})
    manifest = read_manifest(tmp_path / "a", "dataset", verify=True)
    assert (manifest.settings, manifest.inputs, manifest.metrics) == (
        {"seed": 1},
        {"raw": "h"},
        {"items": 3},
    )
    assert list(manifest.files) == ["file.txt"]
    assert leftovers(tmp_path) == []


def test_the_hash_depends_on_the_contents_only(tmp_path: Path) -> None:
    one, same, other = make(tmp_path / "a"), make(tmp_path / "b"), make(tmp_path / "c", text="y")
    assert read_manifest(one).hash == read_manifest(same).hash != read_manifest(other).hash


def test_a_failed_write_keeps_the_old_artefact(tmp_path: Path) -> None:
    make(tmp_path / "a", text="old")
    with pytest.raises(RuntimeError), create(tmp_path / "a", "dataset") as target:
        (target / "file.txt").write_text("half")
        raise RuntimeError
    assert (tmp_path / "a" / "file.txt").read_text() == "old"
    read_manifest(tmp_path / "a", verify=True)
    assert leftovers(tmp_path) == []


def test_a_folder_that_is_not_an_artefact_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="not touched"):
        make(tmp_path / "a")
    assert (tmp_path / "a" / "thesis.txt").read_text() == "years of work"


def test_a_changed_or_missing_file_is_detected(tmp_path: Path) -> None:
    folder = make(tmp_path / "a")
    (folder / "file.txt").write_text("changed")
    with pytest.raises(ValueError, match=r"file.txt is missing or differs.*rqrec prepare"):
        read_manifest(folder, verify=True)


def test_another_format_version_is_refused_with_a_remedy(tmp_path: Path) -> None:
    folder = make(tmp_path / "a")
    write_json(folder / "manifest.json", read_json(folder / "manifest.json") | {"format_version": 99})
    with pytest.raises(
        ValueError, match=rf"format_version 99.*reads format_version {FORMAT_VERSION}.*Choose another folder"
    ):
        read_manifest(folder)
    with pytest.raises(ValueError, match="format_version 99"):
        is_current(folder, "dataset", {}, {})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"artifact_type": "dataset"}', "\x00"])
def test_a_broken_manifest_is_an_error_message(tmp_path: Path, text: str) -> None:
    folder = make(tmp_path / "a")
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest|format_version"):
        read_manifest(folder)


def test_find_looks_at_the_folder_and_directly_inside(tmp_path: Path) -> None:
    inner = make(tmp_path / "run" / "model", "retrieval")
    make(tmp_path / "run" / "data")
    assert find(inner, "retrieval") == inner
    assert find(tmp_path / "run", "retrieval") == inner
    with pytest.raises(FileNotFoundError, match="rqrec train-rqvae"):
        find(tmp_path / "run", "rqvae")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        find(tmp_path / "nowhere", "rqvae")
    with pytest.raises(ValueError, match="'dataset', but 'retrieval' is needed"):
        find(tmp_path / "run" / "data", "retrieval")
    make(tmp_path / "run" / "second", "retrieval")
    with pytest.raises(ValueError, match="several"):
        find(tmp_path / "run", "retrieval")


def test_find_looks_into_run_folders_if_the_folder_has_none(tmp_path: Path) -> None:
    inner = make(tmp_path / "out" / "seed_0" / "retrieval", "retrieval")
    make(tmp_path / "tokenizer", "rqvae").rename(inner / "tokenizer")  # inside an artefact: part of it
    assert find(tmp_path / "out", "retrieval") == inner
    with pytest.raises(FileNotFoundError, match="has no artefact of type 'rqvae'"):
        find(tmp_path / "out" / "seed_0", "rqvae")
    make(tmp_path / "out" / "seed_1" / "retrieval", "retrieval")
    with pytest.raises(
        ValueError, match=r"several .*\(seed_0/retrieval, seed_1/retrieval\): give one of these"
    ):
        find(tmp_path / "out", "retrieval")
    nearer = make(tmp_path / "out" / "retrieval", "retrieval")
    assert find(tmp_path / "out", "retrieval") == nearer


def test_an_input_is_found_in_the_folders_around_an_artefact_by_its_hash(tmp_path: Path) -> None:
    data = make(tmp_path / "out" / "dataset", "dataset")
    inputs = {"dataset": read_manifest(data).hash}
    model = make(tmp_path / "out" / "seed_0" / "experts" / "retrieval", "retrieval", inputs=inputs)
    make(tmp_path / "out" / "seed_0" / "dataset", "dataset", text="another one")
    (tmp_path / "out" / "extension").mkdir()
    (tmp_path / "out" / "extension" / "manifest.json").write_text("of another program")
    assert find_input(model, "dataset") == data
    assert find_input(model, "embeddings") is None
    data.rename(tmp_path / "far away")
    assert find_input(model, "dataset") is None


def test_an_artefact_made_from_other_inputs_is_refused(tmp_path: Path) -> None:
    data, other = make(tmp_path / "data"), make(tmp_path / "other", text="y")
    child = make(tmp_path / "child", "embeddings", inputs={"dataset": read_manifest(data).hash})
    check_inputs(child, {"dataset": data})
    with pytest.raises(ValueError, match=r"was not made from .*other.*rqrec embed"):
        check_inputs(child, {"dataset": other})


def test_reuse_needs_equal_settings_inputs_and_files(tmp_path: Path) -> None:
    assert not is_current(tmp_path / "a", "dataset", {}, {})
    folder = make(tmp_path / "a", settings={"sizes": (1, 2), "more": 0}, inputs={"raw": "h"})
    assert is_current(folder, "dataset", {"sizes": (1, 2)}, {"raw": "h"})
    assert not is_current(folder, "dataset", {"sizes": (1, 3)}, {"raw": "h"})
    assert not is_current(folder, "dataset", {"new": 1}, {"raw": "h"})
    assert not is_current(folder, "dataset", {}, {"raw": "other"})
    assert is_current(folder, "dataset", {}, None)
    with pytest.raises(ValueError, match="'dataset', but 'rqvae'"):
        is_current(folder, "rqvae", {}, {})


def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        NotADirectoryError, match=r"a cannot be made, because .*file is a file: choose another"
    ):
        reuse(tmp_path / "file" / "b" / "a", "dataset", {}, {})

    def denied(*_: object) -> None:  # root may write everywhere
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.open", denied)
    with pytest.raises(PermissionError, match=r"Permission denied: '.*'"):
        reuse(tmp_path / "b" / "a", "dataset", {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("write", [pl.DataFrame.write_parquet, pl.DataFrame.write_csv])
def test_a_table_that_is_too_large_for_the_file_system_names_the_path(tmp_path: Path, write: Any) -> None:
    """polars has exceptions of its own for it."""
    path, table = tmp_path / "table", pl.DataFrame({"text": [f"{n**9}" for n in range(10_000)]})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"table") as caught, atomic_write(path) as file:
            write(table, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_bytes_and_names_the_path(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="file") as caught, atomic_write(path) as file:
        file.write(b"new")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "reads", "command"),
    [
        ("dataset", 2, "rqrec prepare"),
        ("semantic_ids", 2, "rqrec tokenize"),
        ("retrieval", 4, "rqrec train-decoder"),
    ],
)
def test_an_artefact_of_the_first_format_is_refused_with_its_command(
    kind: str, reads: int, command: str, tmp_path: Path
) -> None:
    """Format 1 called the type "kind", the inputs "made_from" and the metrics "facts"."""
    (tmp_path / "run" / "old").mkdir(parents=True)
    former = {"kind": kind, "settings": {}, "made_from": {}, "facts": {}, "files": {}, "format_version": 1}
    write_json(tmp_path / "run" / "old" / "manifest.json", former)
    for attempt in (
        lambda: read_manifest(tmp_path / "run" / "old"),
        lambda: read_manifest(find(tmp_path / "run", kind), kind),
        lambda: reuse(tmp_path / "run" / "old", kind, {}, {}),
    ):
        with pytest.raises(
            ValueError, match=rf"format_version 1 .*reads format_version {reads}.*`{command}`"
        ):
            attempt()


def test_a_model_of_the_former_format_is_refused_and_to_be_trained_again(tmp_path: Path) -> None:
    """Other artefacts of format 2 are read."""
    for kind in ("retrieval", "sasrec", "dataset"):
        with create(tmp_path / kind, kind):
            pass
        path = tmp_path / kind / "manifest.json"
        former = 2 if kind == "dataset" else format_version_of(kind) - 1
        write_json(path, read_json(path) | {"format_version": former})
    assert read_manifest(tmp_path / "dataset").artifact_type == "dataset"
    for kind, command in (("retrieval", "train-decoder"), ("sasrec", "train-sasrec")):
        reads = format_version_of(kind)
        with pytest.raises(
            ValueError, match=rf"format_version {reads - 1} .*format_version {reads}.*`rqrec {command}`"
        ):
            read_manifest(find(tmp_path, kind))


def test_a_stage_reuses_its_artefact_or_refuses_and_never_replaces_it_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not reuse(tmp_path / "a", "dataset", {}, {})
    folder = make(tmp_path / "a", settings={"core": 4, "loop": {"seed": 0}}, inputs={"raw": "h"})
    same = {"core": 4, "loop": {"seed": 0}}
    assert reuse(folder, "dataset", same, {"raw": "h"})
    assert f"a: found in {folder}." in capsys.readouterr().err.replace("\n", "")
    with pytest.raises(ValueError, match=r"core was 4 and is 1; loop.seed was 0 and is 2.*with --force"):
        reuse(folder, "dataset", {"core": 1, "loop": {"seed": 2}}, {"raw": "h"})
    with pytest.raises(ValueError, match="its input 'raw' was another one"):
        reuse(folder, "dataset", same, {"raw": "other"})
    with pytest.raises(ValueError, match=r"replace it with train\.resume='never'"):
        reuse(folder, "dataset", {}, {"raw": "h"}, how_to_replace="train.resume='never'")
    with pytest.raises(ValueError, match="4 was 4 and is None and 3 more"):
        reuse(make(tmp_path / "b", settings={f"{n}": n for n in range(8)}), "dataset", {}, {})
    assert not reuse(folder, "dataset", {}, {}, force=True)
    (folder / "file.txt").write_text("changed")
    with pytest.raises(ValueError, match="differs from its manifest"):
        reuse(folder, "dataset", same, {"raw": "h"})


@pytest.mark.parametrize("entry", ["artifact_type", "settings", "inputs", "metrics", "files"])
@pytest.mark.parametrize("value", [None, 3])
def test_a_manifest_with_a_missing_or_wrong_entry_is_refused(
    tmp_path: Path, entry: str, value: object
) -> None:
    make(tmp_path / "run" / "a")
    manifest = read_json(tmp_path / "run" / "a" / "manifest.json")
    del manifest[entry]
    write_json(
        tmp_path / "run" / "a" / "manifest.json", manifest if value is None else {**manifest, entry: value}
    )
    with pytest.raises(ValueError, match=f"damaged: its entry '{entry}'"):
        read_manifest(tmp_path / "run" / "a")
    write_json(tmp_path / "run" / "b" / "manifest.json", [])
    with pytest.raises(FileNotFoundError, match="no artefact of type 'rqvae'"):
        find(tmp_path / "run", "rqvae")


def test_a_full_disk_is_an_os_error_whichever_library_met_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, create(tmp_path / "a", "dataset"):
        raise RuntimeError("failed to write: No space left on device (os error 28)")
    assert caught.value.filename == str(tmp_path / "a")
    assert leftovers(tmp_path) == []


def test_a_folder_may_be_the_current_one_and_a_leftover_of_a_killed_process_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "a", text="old")
    (tmp_path / f".a.{os.getpid()}.rqrec-partial").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    assert find(Path(), "dataset") == Path()
    monkeypatch.chdir(make(tmp_path / "a", text="new"))
    assert (Path() / "file.txt").read_text() == "new"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["../x.txt", "/etc/passwd", "a/../../x", "..", "", "a\\b", "a\0b"])
def test_a_manifest_names_files_in_its_folder_only(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "a")
    (tmp_path / "x.txt").write_text("x")
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"files": {**manifest["files"], name: "0" * 64}})
    with pytest.raises(ValueError, match="is not the name of a file in its folder"):
        read_manifest(folder)


def test_a_file_that_the_manifest_does_not_list_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "a")
    (folder / "README.md").write_text("beside an artefact")
    (folder / ".gitattributes").write_text("beside an artefact")
    (folder / "data").mkdir()
    make(tmp_path / "inside").rename(folder / "data" / "inside")
    read_manifest(folder, verify=True)
    (folder / "weights.safetensors").write_text("x")
    with pytest.raises(ValueError, match="not in the manifest"):
        read_manifest(folder, verify=True)
    (folder / "weights.safetensors").rename(folder / "experts.json")
    write_json(folder / "manifest.json", read_json(folder / "manifest.json") | {"files": {}})
    with pytest.raises(ValueError, match=r"experts\.json is not in the manifest"):
        read_manifest(folder, verify=True)


def test_a_file_in_an_artefact_is_none_to_write(tmp_path: Path) -> None:
    outer = make(tmp_path / "outer")
    (tmp_path / "link").symlink_to(outer)
    for inside in (outer / "file.txt", outer / "a" / "b.npy", tmp_path / "link" / "b.npy"):
        with pytest.raises(ValueError, match=r"lies in .*outer, an artefact that another file would damage"):
            check_outside_artifacts(inside)
    check_outside_artifacts(tmp_path / "b.npy")


@pytest.mark.parametrize("text", ['{"name": "an app", "icons": []}', "[]", "no JSON"])
def test_a_manifest_of_another_program_makes_no_artefact(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    check_outside_artifacts(tmp_path / "b.npy")
    make(tmp_path / "out" / "a")


def test_an_artefact_in_another_would_be_lost_with_it(tmp_path: Path) -> None:
    outer = make(tmp_path / "outer", "retrieval")
    for work in (lambda: make(outer / "a", "evaluation"), lambda: reuse(outer / "b", "evaluation", {}, {})):
        with pytest.raises(ValueError, match=r"lies in .*outer, an artefact"):
            work()
    assert make(outer, "retrieval") == outer


def test_an_artefact_with_files_of_others_is_not_replaced(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", "retrieval")
    (folder / "versions" / "1").mkdir(parents=True)
    (folder / "versions" / "1" / "items.parquet").write_text("its own")
    (folder / ".gitattributes").write_text("hidden")
    assert not reuse(folder, "retrieval", {}, {}, force=True)
    make(tmp_path / "b").rename(folder / "inside")
    (folder / "notes.txt").write_text("years")
    with pytest.raises(
        FileExistsError,
        match=r"not its own and would be lost \(inside/file\.txt, inside/manifest\.json, notes\.txt\)",
    ):
        reuse(folder, "retrieval", {}, {}, force=True)
    assert (folder / "notes.txt").read_text() == "years"


def test_a_mount_point_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder can take its place neither then nor later."""
    monkeypatch.setattr("os.path.ismount", lambda path: path == tmp_path / "mounted")
    (tmp_path / "mounted").mkdir()
    for work in (make, lambda folder: reuse(folder, "dataset", {}, {})):
        with pytest.raises(ValueError, match=r"a file system is mounted.*give a folder inside it"):
            work(tmp_path / "mounted")
    make(tmp_path / "mounted" / "a")
    assert os.listdir(tmp_path) == ["mounted"]


def test_links_in_a_circle_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for work in (make, lambda folder: reuse(folder, "dataset", {}, {}), check_outside_artifacts):
        for path in (tmp_path / "loop", tmp_path / "loop" / "a"):
            with pytest.raises(OSError, match=r"Too many levels of symbolic links: .*loop"):
                work(path)
    assert os.listdir(tmp_path) == ["loop"]
