"""The wheel, installed in an environment of its own and used in an empty folder."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from rqrec import __version__
from tests.experiments.test_quickstart import MINUTES, write_movielens

ROOT = Path(__file__).resolve().parents[1]


def run(*command: object, at: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=at, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an environment that has this version's wheel, and the packages of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder)
    run("git", "clone", "--quiet", ROOT, folder / "clone", at=folder)  # a build leaves files in its folder
    run(*build, at=folder / "clone")
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env/bin/python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        at=folder,
    )
    (packages,) = (folder / "env/lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    found = run(python, "-c", "import rqrec; print(rqrec.__file__)", at=folder)
    assert packages in Path(found.strip()).parents
    return folder / "env/bin"


@pytest.mark.slow
def test_the_program_of_the_wheel_goes_from_two_files_to_recommendations(
    installed: Path, tmp_path: Path
) -> None:
    assert run(installed / "rqrec", "--version", at=tmp_path).strip() == f"rqrec {__version__}"
    metadata = "from importlib.metadata import version; print(version('rqrec'))"
    assert run(installed / "python", "-c", metadata, at=tmp_path).strip() == __version__
    assert "MovieLens 100K" in run(installed / "rqrec", "demo", "--help", at=tmp_path)
    assert str(installed.parent) in run(
        installed / "python", "-c", "import rqrec.serving as s; print(s.__file__)", at=tmp_path
    )
    log, items = write_movielens(tmp_path)
    run(
        installed / "rqrec",
        "quickstart",
        log,
        items,
        "--minutes",
        str(MINUTES),
        "--no-serve",
        "--out",
        "out/try",
        at=tmp_path,
    )  # needs the recipe's gin files, which are data of the package
    (history,) = (line.split(",")[1] for line in log.read_text().splitlines()[1:2])
    printed = run(
        installed / "rqrec", "recommend", "--artifact", "out/try", "--history", history, "--k", 3, at=tmp_path
    )
    assert len(printed.splitlines()) >= 3


def test_versions_agree() -> None:
    """The package, the citation and the newest entry of the changes name one version."""
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0] == f"## {__version__}"
