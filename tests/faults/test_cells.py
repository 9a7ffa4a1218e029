"""Each fault does to each command what docs/reliability.md says."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.cells import FAULTS, NEED_A_DISK, PAGE, commands, documented


def test_the_page_has_every_fault_and_command(tmp_path: Path) -> None:
    expected = dict.fromkeys(commands(tmp_path, tmp_path))
    assert {title: dict.fromkeys(cells) for title, cells in documented().items()} == {
        title: expected for title, _ in FAULTS.values()
    }
    assert "FAILED" not in PAGE.read_text()


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, str]]:
    """The cells of every fault that can be tried here, by its name."""
    may_mount = not os.geteuid() and shutil.which("mount")
    faults = [fault for fault in FAULTS if may_mount or fault not in NEED_A_DISK]
    command = [sys.executable, "-m", "tests.faults.cells", *faults]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=PAGE.parents[1])
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(4000)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_page_is_true(fault: str, found: dict[str, dict[str, str]]) -> None:
    if fault not in found:
        pytest.skip("This user may not mount a small file system.")
    assert found[fault] == documented()[FAULTS[fault][0]]
