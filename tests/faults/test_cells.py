"""Each fault does to each command what docs/reliability.md says."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.cells import FAULTS, PAGE, commands, documented


def test_the_page_has_every_fault_and_command(tmp_path: Path) -> None:
    expected = dict.fromkeys(commands(tmp_path, tmp_path))
    assert {title: dict.fromkeys(cells) for title, cells in documented().items()} == {
        title: expected for title, _ in FAULTS.values()
    }
    assert "FAILED" not in PAGE.read_text()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_page_is_true(fault: str) -> None:
    if "disk" in FAULTS[fault][0] and (os.geteuid() or not shutil.which("mount")):
        pytest.skip("This user may not mount a small file system.")
    command = [sys.executable, "-m", "tests.faults.cells", fault]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PAGE.parents[1])
    assert json.loads(done.stdout.splitlines()[-1])[fault] == documented()[FAULTS[fault][0]]
