"""Every block of the README and of the pages in docs/ runs, or is at least understood by the program it calls."""

import argparse
import importlib.util
import itertools
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from rqrec import Recommender
from rqrec.cli import app
from rqrec.cli.command import training_config
from rqrec.stages.train_decoder import TrainDecoderConfig
from rqrec.stages.train_rqvae import TrainRqVaeConfig
from rqrec.stages.train_sasrec import TrainSasRecConfig
from tests.docs.home import rqrec, shortened, write_demo, write_files
from tests.docs.snippets import (
    LANGUAGES,
    PAGES,
    ROOT,
    Command,
    all_blocks,
    all_commands,
    blocks_of,
    commands_of,
)
from tests.serving.running import running

# Commands of rqrec that are parsed and not run, by how they begin, and why. Everything else runs.
NOT_RUN = {
    "rqrec serve": "answers until it is stopped",
    "rqrec quickstart": "ends with a service; tests/experiments/test_quickstart.py runs it",
    "rqrec reproduce": "minutes to hours; tests/experiments/test_reproduce.py runs it",
    "rqrec compare": "hours; tests/experiments/test_compare.py runs it",
    "rqrec bench": "measures for minutes",
    "rqrec push": "needs a Hugging Face account",
    "rqrec pull": "needs the network",
    "rqrec batch-recommend --engine ray": "needs folders that a cluster shares",
    "rqrec tokenize /shared/rqvae": "needs folders that a cluster shares",
    "accelerate launch": "several processes; tests/training/test_processes.py runs them",
    "python train_rqvae.py configs/rqvae_amazon.gin": "downloads Amazon's reviews",
    "python train_decoder.py configs/decoder_amazon.gin": "downloads Amazon's reviews",
    "python train_rqvae.py configs/rqvae_ml100k.gin": "downloads MovieLens",
    "python train_decoder.py configs/decoder_ml100k.gin": "downloads MovieLens",
}
# Folders that are made of what NOT_RUN would have downloaded.
GO_ON_FROM_DOWNLOADS = ("out/beauty", "out/cold", "../dataset")
CONFIGS = {
    "train-rqvae": TrainRqVaeConfig,
    "train-decoder": TrainDecoderConfig,
    "train-sasrec": TrainSasRecConfig,
}


def why_not_run(command: Command) -> list[str]:
    """The entries of the two lists above that keep a command from being run."""
    text = str(command)
    return [start for start in NOT_RUN if text.startswith(start)] + [
        folder for folder in GO_ON_FROM_DOWNLOADS if folder in text
    ]


def is_run(command: Command) -> bool:
    return command.rqrec is not None and not why_not_run(command)


def test_every_block_has_a_language_and_can_be_read() -> None:
    for block in all_blocks():
        assert block.language in LANGUAGES, block
        if block.language == "python":
            compile(block.text, f"{block.page}:{block.line}", "exec")
        elif block.language == "json" and "..." not in block.text:
            json.loads(block.text)


def test_each_reason_for_not_running_a_command_is_needed() -> None:
    reasons = [why_not_run(command) for command in all_commands()]
    for entry in (*NOT_RUN, *GO_ON_FROM_DOWNLOADS):
        assert [entry] in reasons, f"No command needs {entry!r}: remove it."


class ParsedError(Exception):
    """A program has read its arguments."""


def parse_rqrec(words: tuple[str, ...]) -> None:
    """The command and its options exist, their values have the right types, and settings of gin exist."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("rqrec", [*words])
    while hasattr(group, "commands"):
        name, group, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        context = group.make_context(name, rest, parent=context)
    if config := CONFIGS.get(words[0]):
        files = [ROOT / path if (ROOT / path).is_file() else path for path in context.params["configs"] or []]
        training_config(config(), words[0].replace("-", "_"), files, context.params["bindings"])


def parse_script(path: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark's own parser takes these arguments."""
    read = argparse.ArgumentParser.parse_args

    def read_and_stop(parser: argparse.ArgumentParser, *given: Any) -> None:
        read(parser, *given)
        raise ParsedError

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", read_and_stop)
        patch.setattr(sys, "argv", [path, *words])
        patch.setattr(sys, "path", [str((ROOT / path).parent), *sys.path])
        with pytest.raises(ParsedError):
            runpy.run_path(str(ROOT / path), run_name="__main__")


def parse_other(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs other than rqrec: their files, targets, modules and extras exist."""
    program, *words = command.words
    benchmark = next((place for place, word in enumerate(words) if word.startswith("benchmarks/")), None)
    if program in ("python", "torchrun") and benchmark is not None:
        if program == "torchrun":
            from torch.distributed.run import get_args_parser

            get_args_parser().parse_args(words)
        parse_script(words[benchmark], tuple(words[benchmark + 1 :]), monkeypatch)
    elif program == "python" and words[0] == "-m":
        module = importlib.util.find_spec(words[1])
        assert module is not None
        assert all(
            (ROOT / word).exists() for word in words[2:] if "/" in word and not word.startswith("out/")
        )
    elif program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.M)
        assert {*words} <= {*targets}
    elif program in ("pip", "uv"):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        named = [  # extras
            extra
            for word in words
            for found in re.findall(r"rqrec\[(.*)\]", word)
            for extra in found.split(",")
        ]
        assert {*named} <= {*project["optional-dependencies"]}
        assert all((ROOT / word).is_file() for word in words if word.endswith(".txt"))
    elif program in ("source", "cd"):
        assert words in ([".venv/bin/activate"], ["out/beauty/experts"])
    elif program.endswith(".sh"):
        assert os.access(ROOT / program, os.X_OK)
    elif program == "docker":
        assert (ROOT / "Dockerfile").is_file()
    else:
        raise AssertionError(f"{program} is unknown here")


def test_every_command_is_understood_by_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for command in all_commands():
        try:
            if command.rqrec is not None:
                parse_rqrec(command.rqrec)
                if command.words[:2] == ("accelerate", "launch"):
                    from accelerate.commands.launch import launch_command_parser

                    given = launch_command_parser().parse_args([*command.words[2:]])
                    assert given.config_file is None or Path(given.config_file).is_file()
            elif command.words[0] != "curl":  # runs below
                parse_other(command, monkeypatch)
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{command.where}\n{error!r}") from error


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files, `out/demo`, `out/shop` made by the commands of your-data.md; `out/mine` is a copy."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("configs", "train_rqvae.py", "train_decoder.py", "run_rqvae.py"):
        (folder / name).symlink_to(ROOT / name)
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_demo(Path())
        chain = next(block for block in blocks_of(ROOT / "docs/your-data.md") if "rqrec join" in block.text)
        for command in commands_of(chain):
            if is_run(command):
                assert command.rqrec is not None
                rqrec(*shortened(command.rqrec))
    shutil.copytree(folder / "out/shop", folder / "out/mine")
    shop = folder / "shop"
    shop.mkdir()
    for name in ("log.parquet", "items.parquet"):
        shutil.copy(folder / name, shop / name)
    return folder


@pytest.fixture
def here(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the home to run a page in, as the current folder."""
    folder = tmp_path / "home"
    shutil.copytree(home, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def written(words: tuple[str, ...]) -> Iterator[Path]:
    """Folders that a command writes."""
    for option, value in itertools.pairwise(words):
        if option == "--out":
            yield Path(value)
        elif found := re.search(r'save_dir_root="(.*?)"', value):
            yield Path(found[1])


def ask(command: Command, address: str) -> None:
    """Run curl against this service: only a prefix of the demo's codes may be unknown to it."""
    line = shlex.join(command.words).replace("localhost:8000", address.removeprefix("http://"))
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
    if "/metrics" in line:
        assert "rqrec_requests_total" in done.stdout
        return
    error = json.loads(done.stdout).get("error", {"code": "none"})
    assert error["code"] == ("unknown_prefix" if "/semantic-ids/" in line else "none"), (command.where, error)


def runs(page: Path) -> bool:
    """Whether anything on the page can be run."""
    commands = [command for command in all_commands() if command.page == page.name]
    blocks = [block for block in all_blocks() if block.page == page.name]
    return any(is_run(command) or command.words[0] == "curl" for command in commands) or any(
        block.language == "python" for block in blocks
    )


RUN = [page for page in PAGES if runs(page)]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_in_their_order(page: Path, here: Path) -> None:
    blocks = blocks_of(page)
    commands = {block: commands_of(block) for block in blocks if block.language in ("", "sh")}
    names = {"recommender": Recommender.load("out/demo")}
    with running({"demo": here / "out/mine/joined"}, admin_token="b0ss") as address:
        for block in blocks:
            if block.language == "python":
                exec(compile(block.text, f"{page.name}:{block.line}", "exec"), names)
            for command in commands.get(block, []):
                if command.words[0] == "curl":
                    ask(command, address)
                elif is_run(command):
                    for folder in written(command.rqrec or ()):  # made by the commands of another page
                        shutil.rmtree(folder, ignore_errors=True)
                    rqrec(*shortened(command.rqrec or ()))
