"""Every command that makes something ends with lines that go on with it, which work where they are pasted."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rqrec.cli import app
from rqrec.cli.next_steps import line, program
from tests.stages.world import write_world


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A shell in which the program's environment is not active."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started_as(monkeypatch: pytest.MonkeyPatch, script: Path) -> Path:
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(script), "demo"])
    return script


def test_the_program_is_named_as_a_shell_here_can_start_it(
    outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = started_as(monkeypatch, outside / ".venv" / "bin" / "rqrec")
    assert program() == ".venv/bin/rqrec"
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin")
    assert program() == "rqrec"  # the environment is active
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    far = started_as(monkeypatch, outside.parent / "a b" / "rqrec")
    assert program() == f"'{far}'"
    monkeypatch.setattr(sys, "executable", str(outside / "bin" / "python"))
    monkeypatch.setattr(sys, "argv", [str(outside / "rqrec" / "__main__.py")])
    assert program() == "bin/python -m rqrec"


def test_folders_are_shown_from_here_and_quoted(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started_as(monkeypatch, outside / "rqrec")
    folder = outside / "my films"
    assert line("serve", "--artifact", folder) == "rqrec serve --artifact 'my films'".replace(
        "rqrec", program()
    )
    assert line("serve", "--artifact", Path("/elsewhere")).endswith("--artifact /elsewhere")


def paste(output: str) -> list[str]:
    """The arguments of the line that follows "Next, ...:"."""
    (command,) = [one.strip() for one in output.split("Next, ")[1].splitlines()[1:2]]
    return shlex.split(command)


def test_each_command_leads_to_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From two files to recommendations, by pasting what each command says."""
    monkeypatch.chdir(tmp_path)
    world = write_world(tmp_path / "world")
    given = ["--interactions", str(world / "log.parquet"), "--embeddings", str(world / "item_embeddings.npy")]
    runner = CliRunner()
    done = runner.invoke(app, ["prepare", "custom", *given, "--out", "out/dataset"])
    made = []
    short = {"embed": ["--embeddings", str(world / "item_embeddings.npy")], "train-decoder": SHORT}
    for _ in range(5):
        assert done.exit_code == 0, done.stderr
        _, *arguments = paste(done.stderr)[len(shlex.split(program())) - 1 :]
        made.append(arguments[0])
        done = runner.invoke(app, [*arguments, *short.get(arguments[0], [])])
    assert made == ["embed", "fit-rqkmeans", "tokenize", "train-decoder", "recommend"]
    assert done.exit_code == 0, done.stderr
    assert "10. " in done.stdout


SHORT = [
    part
    for setting in ("iterations=3", "epochs=0", "warmup=0", "validations=1", "attn_layers=1")
    for part in ("--gin", f"train.{setting}")
]


def test_a_pasted_line_works_in_a_shell(tiny_run: Path) -> None:
    command = line("recommend", "--artifact", tiny_run, "--history", "item 8,item 9")
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert "Title 10" in done.stdout
