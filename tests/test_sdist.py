"""The source distribution has all that the tests need."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# They need files of every kind: locks, docs, benchmarks, golden figures, what the package holds besides Python.
TESTS = (
    "tests/test_lock.py",
    "tests/test_imports.py",
    "tests/test_settings_page.py",
    "tests/tokenizer/test_trie.py",
)


def listed(*command: str) -> set[str]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split("\0")) - {""}


@pytest.mark.slow
def test_the_tests_pass_in_an_unpacked_source_distribution(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("This is no clone.")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    build = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", str(tmp_path)]
    subprocess.run(build, cwd=clone, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.glob("rqrec-*/")
    tracked = {name for name in listed("git", "ls-files", "-z") if not name.startswith(".")}
    assert not {name for name in tracked if not (folder / name).is_file()}
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
