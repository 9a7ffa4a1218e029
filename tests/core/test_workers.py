import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from rqrec.core.workers import LocalProcesses, workers


def square(number: int) -> tuple[int, int]:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * number, os.getpid()


def kill_own_process(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run_until_interrupted(name: str, folder: Path) -> None:
    """Save shortly after an interrupt, as training does at the end of a step; a second one would prevent it."""
    try:
        (folder / f"{name}.started").touch()
        time.sleep(120)
    except KeyboardInterrupt:
        time.sleep(0.5)
        (folder / f"{name}.saved").touch()
        raise


def fail_beside_a_running_task(name: str, folder: Path) -> None:
    if name == "sleeper":
        run_until_interrupted(name, folder)
    wait_until((folder / "sleeper.started").exists)
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError(f"{name} failed")


def test_several_processes_run_every_task_once() -> None:
    results = list(LocalProcesses(2).run(square, range(7)))
    assert sorted(value for value, _ in results) == [n * n for n in range(7)]
    assert os.getpid() not in {process for _, process in results}
    assert list(LocalProcesses(1).run(square, [3])) == [(9, os.getpid())]
    assert list(LocalProcesses(2).run(square, [])) == []


def threads_here(_: int) -> tuple[int, int]:
    import torch

    return torch.get_num_threads(), os.getpid()


def test_a_single_process_with_its_own_threads_is_not_this_one() -> None:
    ((threads, process),) = LocalProcesses(1, threads=1).run(threads_here, [0])
    assert threads == 1
    assert process != os.getpid()


def test_the_first_error_stops_the_run() -> None:
    with pytest.raises(ValueError, match="-1 is negative"):
        list(LocalProcesses(2).run(square, [1, -1, 2]))


def test_a_killed_process_is_reported_with_a_remedy() -> None:
    with pytest.raises(ChildProcessError, match="fewer --processes"):
        list(LocalProcesses(2).run(kill_own_process, [1, 2, 3]))


UNGUARDED = """
from rqrec.core.workers import LocalProcesses

print(sorted(LocalProcesses(2).run(abs, [-1, -2, -3])))
"""


def test_a_script_that_its_workers_cannot_import_is_told_why(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=120
    )
    # Python may still warn of what the processes left when they ended.
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("ChildProcessError")]
    assert done.returncode == 1
    assert said.startswith("ChildProcessError: A worker process ended with an error")
    assert said.endswith('under `if __name__ == "__main__":`.')
    assert "memory" not in said


@pytest.mark.parametrize(("other", "error"), [("failing", ValueError), ("killed", ChildProcessError)])
def test_a_running_task_can_save_when_another_one_fails(
    other: str, error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error):
        list(LocalProcesses(2).run(partial(fail_beside_a_running_task, folder=tmp_path), ["sleeper", other]))
    assert (tmp_path / "sleeper.saved").exists()


def test_unknown_engines_and_contradicting_options_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="engine is 'slurm'; allowed are local, ray"):
        workers("slurm")
    with pytest.raises(ValueError, match="processes is 0"):
        workers("local", 0)
    with pytest.raises(ValueError, match="--processes is for --engine local"):
        workers("ray", 2)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r'not installed: pip install "rqrec\[ray\]"'):
        workers("ray")


SLEEPERS = """
import signal
from functools import partial
from pathlib import Path
from rqrec.core.workers import LocalProcesses
from tests.core.test_workers import run_until_interrupted

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores SIGINT
    try:
        list(LocalProcesses(2).run(partial(run_until_interrupted, folder=Path()), ["a", "b", "c", "d"]))
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.fixture
def sleepers(tmp_path: Path) -> "subprocess.Popen[str]":
    """A process with two running tasks, in its own process group."""
    (tmp_path / "sleepers.py").write_text(SLEEPERS)
    process = subprocess.Popen(
        [sys.executable, "sleepers.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: all((tmp_path / f"{name}.started").exists() for name in "ab"))
    return process


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix in (".started", ".saved")}


BOTH_SAVED = {"a.started", "b.started", "a.saved", "b.saved"}


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to the parent alone", "to the group"])
def test_ctrl_c_interrupts_each_running_task_once_and_starts_no_other(
    sleepers: "subprocess.Popen[str]", send: Callable[[int, int], None], tmp_path: Path
) -> None:
    send(sleepers.pid, signal.SIGINT)
    assert sleepers.communicate(timeout=100) == ("interrupted\n", "")
    assert files_in(tmp_path) == BOTH_SAVED


def test_running_tasks_can_save_when_the_parent_is_killed(
    sleepers: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    sleepers.kill()
    sleepers.communicate(timeout=100)  # until the tasks too have closed standard error
    assert files_in(tmp_path) == BOTH_SAVED
