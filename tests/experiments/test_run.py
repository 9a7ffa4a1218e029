from pathlib import Path

import pytest

from rqrec.core.artifact import create, read_manifest, reuse
from rqrec.experiments.run import SECONDS_FILE, Run


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
