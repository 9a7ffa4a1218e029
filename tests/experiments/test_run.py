from pathlib import Path

import pytest

from rqrec.core.artifact import create, read_manifest, reuse
from rqrec.experiments.run import SECONDS_FILE, Run, only_run


def make(folder: Path, seed: int) -> Path:
    if not reuse(folder, "rqvae", {"seed": seed}, {}):
        with create(folder, "rqvae", settings={"seed": seed}) as target:
            (target / "weights").write_text(str(seed))
    return folder


def test_a_stage_is_timed_when_it_makes_its_artefact_and_only_then(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.stage("rqvae", lambda folder: make(folder, 1)) == tmp_path / "rqvae"
    run.seconds["rqvae"] = 100.0
    run.stage("rqvae", lambda folder: make(folder, 1))
    assert run.seconds == {"rqvae": 100.0}
    (tmp_path / "rqvae").rename(tmp_path / "elsewhere")
    run.stage("rqvae", lambda folder: make(folder, 2))
    assert run.seconds["rqvae"] < 100
    assert Run(tmp_path).seconds == run.seconds


def test_an_artefact_that_was_made_differently_is_refused_with_what_an_experiment_allows(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path)
    run.stage("rqvae", lambda folder: make(folder, 1))
    before = read_manifest(tmp_path / "rqvae").hash
    with pytest.raises(ValueError, match=r"seed was 1 and is 2\. Repeat the same command, choose") as caught:
        run.stage("rqvae", lambda folder: make(folder, 2))
    assert "--force" not in str(caught.value)
    assert read_manifest(tmp_path / "rqvae").hash == before


def test_a_folder_that_the_same_command_has_just_begun_is_free(tmp_path: Path) -> None:
    (tmp_path / f".{SECONDS_FILE}.123.tmp").touch()  # its seconds are being written
    Run(tmp_path)
    (tmp_path / "mine.csv").touch()
    (tmp_path / f".{SECONDS_FILE}.123.tmp").unlink()
    with pytest.raises(FileExistsError, match=r"already holds mine\.csv"):
        Run(tmp_path)


def test_one_command_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    with only_run(tmp_path / "out") as run:
        with pytest.raises(ValueError, match=r"Another command is running in .*out: wait .* with --out"):
            only_run(tmp_path / "out").__enter__()
        run.stage("rqvae", lambda folder: make(folder, 1))
    with only_run(tmp_path / "out") as again:
        assert again.seconds == run.seconds
    (tmp_path / "mine.csv").touch()
    with pytest.raises(FileExistsError, match="already holds mine"), only_run(tmp_path):
        pass
    assert not list(tmp_path.glob(".*"))


def test_a_command_that_makes_nothing_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("new", "mine"):
        with pytest.raises(ValueError, match="not valid"), only_run(tmp_path / name):
            raise ValueError("A setting is not valid.")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
