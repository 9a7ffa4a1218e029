from pathlib import Path

import pytest
import torch

from rqrec.core import memory
from rqrec.core.memory import SLACK, FreeMemory, memory_of_machine, release, resident_mb


def test_memory_that_was_freed_between_live_tensors_goes_back() -> None:
    if not (resident_mb() and memory._malloc_trim()):
        pytest.skip("The system does not report memory, or its C library keeps what was freed.")
    release()
    before = resident_mb()
    # Below the size from which tensors are mapped separately; every second one stays.
    kept = [torch.ones(16_000) for _ in range(4000)][::2]
    assert resident_mb() > before + 200
    release()
    assert resident_mb() < before + 160
    assert len(kept) == 2000


@pytest.mark.parametrize(("limit", "expected"), [("1000\n", 1000), ("max\n", None), (str(2**63), None)])
def test_a_container_may_have_less_memory_than_the_machine(
    limit: str, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CONTAINER", (tmp_path / "missing",))
    whole = memory_of_machine()
    (tmp_path / "limit").write_text(limit)
    monkeypatch.setattr(memory, "CONTAINER", (tmp_path / "missing", tmp_path / "limit"))
    assert memory_of_machine() == (expected or whole)
    assert whole > 2**28


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> "Process":
    process = Process()
    monkeypatch.setattr(memory, "resident_mb", lambda: process.held)
    monkeypatch.setattr(memory, "release", process.release)
    return process


class Process:
    """A process that needs 150 MB, and what it holds beyond that until a release."""

    def __init__(self) -> None:
        self.held, self.releases = 150.0, 0

    def release(self) -> None:
        self.held, self.releases = 150.0, self.releases + 1


def test_a_loop_releases_memory_only_when_it_has_grown(process: "Process") -> None:
    free = FreeMemory()
    for grown, expected in ((SLACK, 0), (SLACK + 1, 1), (50, 1), (50 + SLACK, 2)):
        process.held, before = 150.0 + grown, 1
        free.limit()
        assert process.releases == before + expected


def test_what_an_earlier_loop_left_does_not_count_as_held(process: "Process") -> None:
    process.held = 150.0 + SLACK
    free = FreeMemory()
    process.held += 1
    free.limit()
    assert process.held == 151.0  # less than SLACK more than it held after the release
    process.held = 151.0 + SLACK
    free.limit()
    assert process.held == 150.0


def test_a_system_that_does_not_report_memory_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(memory, "STATUS", memory.Path(f"{tmp_path}/status"))
    assert resident_mb() == 0
    FreeMemory().limit()


def test_the_peak_is_at_least_what_is_resident_now() -> None:
    assert resident_mb("VmHWM") >= resident_mb() * 0.9
