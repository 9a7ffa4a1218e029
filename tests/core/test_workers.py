import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rqrec.core.workers import LocalProcesses, workers


def square(number: int) -> tuple[int, int]:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * number, os.getpid()


def die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_several_processes_do_every_task_once() -> None:
    results = list(LocalProcesses(2).run(square, range(7)))
    assert sorted(value for value, _ in results) == [n * n for n in range(7)]
    assert os.getpid() not in {process for _, process in results}
    assert list(LocalProcesses(1).run(square, [3])) == [(9, os.getpid())]
    assert list(LocalProcesses(2).run(square, [])) == []


def test_the_first_error_ends_the_run() -> None:
    with pytest.raises(ValueError, match="-1 is negative"):
        list(LocalProcesses(2).run(square, [1, -1, 2]))


def test_a_process_that_is_killed_is_told_in_a_sentence() -> None:
    with pytest.raises(ChildProcessError, match="fewer --processes"):
        list(LocalProcesses(2).run(die, [1, 2, 3]))


def test_what_no_engine_offers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="engine is 'slurm'; allowed are local, ray"):
        workers("slurm")
    with pytest.raises(ValueError, match="processes is 0"):
        workers("local", 0)
    with pytest.raises(ValueError, match="processes is for engine=local"):
        workers("ray", 2)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r'not installed: pip install "rqrec\[ray\]"'):
        workers("ray")


SLEEPERS = """
import signal
import time
from pathlib import Path
from rqrec.core.workers import LocalProcesses

def sleep(task):
    Path(task).touch()
    time.sleep(120)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins without
    try:
        list(LocalProcesses(2).run(sleep, ["a", "b", "c", "d"]))
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_ctrl_c_stops_the_tasks_under_way_and_begins_no_other(tmp_path: Path) -> None:
    (tmp_path / "sleepers.py").write_text(SLEEPERS)
    process = subprocess.Popen(
        [sys.executable, "sleepers.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "a").exists() or not (tmp_path / "b").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, errors = process.communicate(timeout=100)
    assert (out, errors) == ("interrupted\n", "")
    assert not (tmp_path / "c").exists()
