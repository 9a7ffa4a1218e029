"""The code blocks of the README and of every page in docs/, and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = ("", "sh", "python", "json", "text")  # without a name, a block is for the shell


@dataclass(frozen=True)
class Block:
    """A fenced block: the name of its page, the line of its fence, its language and its text."""

    page: str
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command of a block for the shell: environment variables, and words up to a redirection or a comment."""

    page: str
    line: int
    environment: dict[str, str]
    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.words)

    @property
    def where(self) -> str:
        return f"{self.page}, line {self.line}: {self}"

    @property
    def rqrec(self) -> tuple[str, ...] | None:
        """The words after `rqrec`, also of a command that goes by a script's name; None for other programs."""
        if self.words[0] == "rqrec":
            return self.words[1:]
        scripts = {
            "train_rqvae.py": "train-rqvae",
            "train_decoder.py": "train-decoder",
            "run_rqvae.py": "run-rqvae",
        }
        for place, word in enumerate(self.words):
            if word in scripts:
                return (scripts[word], *self.words[place + 1 :])
        return None


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    blocks: list[Block] = []
    opened: tuple[int, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        fence = re.fullmatch(r"\s*```(\w*)", line)
        if fence and opened is None:
            opened, lines = (number, fence[1]), []
        elif fence and opened is not None:
            blocks.append(Block(page.name, *opened, "\n".join(lines) + "\n"))
            opened = None
        else:
            lines.append(line)
    assert opened is None, f"{page}: a block is not closed"
    return blocks


def commands_of(block: Block) -> list[Command]:
    """The commands of a block for the shell: a line each, or several that end in a backslash."""
    commands = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        environment = {}
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        if ">" in words:
            words = words[: words.index(">")]
        if words:
            words[0] = words[0].removeprefix(".venv/bin/")
            commands.append(Command(block.page, block.line, environment, tuple(words)))
    return commands


def all_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page)]


def all_commands() -> list[Command]:
    return [
        command for block in all_blocks() if block.language in ("", "sh") for command in commands_of(block)
    ]
