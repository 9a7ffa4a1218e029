"""The lock has what pyproject.toml asks for, with hashes, for every supported Python."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.txt", "requirements-dev.txt", "requirements-torch.txt")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
ASKED = "rqrec (pyproject.toml)"
OUTDATED = "The lock is not what pyproject.toml asks for: run `make lock`."


def entries(name: str) -> Iterator[tuple[Requirement, str]]:
    """Each package of a lock, and the lines of its entry."""
    for entry in re.split(r"^(?=\w)", (ROOT / name).read_text(), flags=re.MULTILINE)[1:]:
        yield Requirement(entry.split("\\")[0]), entry


def asked(name: str) -> dict[str, list[Requirement]]:
    """What pyproject.toml asks for in a lock, by package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values() if name == "requirements-dev.txt" else ()
    found: dict[str, list[Requirement]] = {}
    for text in [*project["dependencies"], *(one for extra in extras for one in extra)]:
        requirement = Requirement(text)
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


@pytest.mark.parametrize("name", LOCKS[:2])
def test_the_lock_is_what_pyproject_asks_for(name: str) -> None:
    wanted = asked(name)
    locked = [*entries(name), *entries("requirements-torch.txt")]
    assert {canonicalize_name(pin.name) for pin, entry in locked if ASKED in entry} == set(wanted), OUTDATED
    for pin, _ in locked:
        (version,) = (one.version for one in pin.specifier)
        for requirement in wanted.get(canonicalize_name(pin.name), ()):
            assert requirement.specifier.contains(version), OUTDATED


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_every_python_gets_one_version_of_each_package(python: str, platform: str) -> None:
    here = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": platform}
    pins = [
        pin for name in LOCKS[1:] for pin, _ in entries(name) if not pin.marker or pin.marker.evaluate(here)
    ]
    names = [canonicalize_name(pin.name) for pin in pins]
    assert len(names) == len(set(names))
    assert set(asked("requirements-dev.txt")) <= set(names)


def test_the_locks_agree() -> None:
    hashes = {
        f"{pin.name}{pin.specifier}": entry.split("--hash")[1:]
        for name in LOCKS[1:]
        for pin, entry in entries(name)
    }
    for pin, entry in entries("requirements.txt"):
        files = entry.partition("    #")[0].split("--hash")[1:]
        assert [one.partition("    #")[0] for one in hashes[f"{pin.name}{pin.specifier}"]] == files


@pytest.mark.parametrize("name", [*LOCKS, "requirements-torch-cpu.txt"])
def test_every_file_has_a_hash_and_nothing_comes_from_elsewhere(name: str) -> None:
    text = (ROOT / name).read_text()
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for _, entry in entries(name))
    assert not re.search(r"https?:|file:|^-|@", text, re.MULTILINE)
