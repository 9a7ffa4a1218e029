import pytest
import torch

from rqrec.core import memory
from rqrec.core.memory import SLACK, FreeMemory, release, resident_mb


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


def test_a_loop_releases_memory_only_when_it_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    held, releases = [100.0], 0

    def released() -> None:
        nonlocal releases
        releases, held[0] = releases + 1, 150.0

    monkeypatch.setattr(memory, "resident_mb", lambda: held[0])
    monkeypatch.setattr(memory, "release", released)
    free = FreeMemory(held=100.0)
    for grown, expected in ((SLACK, 0), (SLACK + 1, 1), (50, 1), (50 + SLACK, 1), (51 + SLACK, 2)):
        held[0] = 100.0 + grown
        free.limit()
        assert releases == expected


def test_a_system_that_does_not_report_memory_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(memory, "STATUS", memory.Path(f"{tmp_path}/status"))
    assert resident_mb() == 0
    FreeMemory().limit()


def test_the_peak_is_at_least_what_is_resident_now() -> None:
    assert resident_mb("VmHWM") >= resident_mb() * 0.9
