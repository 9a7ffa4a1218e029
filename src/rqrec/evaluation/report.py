"""Reports that people read: one sequence of blocks, written as Markdown and as a page of HTML."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rqrec.core.artifact import atomic_write

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .95rem; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: left; }
th { background: var(--soft); } .number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1.2rem 0; } img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
figcaption { font-size: .9rem; opacity: .75; }
"""


@dataclass(frozen=True)
class Heading:
    """A section begins."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """A header and at least one row; fractions are shown with 4 decimals, columns of numbers to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]


@dataclass(frozen=True)
class Figure:
    """A PNG file of the report's folder."""

    file: str
    caption: str


Block = Heading | Paragraph | Table | Figure


@dataclass
class Report:
    """A title and blocks."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    def add(self, *blocks: Block) -> None:
        """Append blocks."""
        self.blocks.extend(blocks)

    def write(self, folder: Path) -> None:
        """Write `report.md` and `report.html`; the page holds its figures and needs no other file."""
        markdown = "\n\n".join([f"# {self.title}", *(_markdown(block) for block in self.blocks)])
        body = "\n".join(_html(block, folder) for block in self.blocks)
        title = html.escape(self.title)
        page = (
            f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>{_STYLE}</style>\n<h1>{title}</h1>\n{body}\n</html>\n"
        )
        for name, text in (("report.md", markdown + "\n"), ("report.html", page)):
            with atomic_write(folder / name) as file:
                file.write(text.encode())


def _cell(value: str | int | float) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {text}"
        case Paragraph(text):
            return text
        case Figure(file, caption):
            return f"![{caption}]({file})"
        case Table(header, rows):
            lines = [header, ["---"] * len(header), *rows]
            return "\n".join(
                "| " + " | ".join(_cell(cell).replace("|", r"\|") for cell in line) + " |" for line in lines
            )


def _html(block: Block, folder: Path) -> str:
    match block:
        case Heading(text):
            return f"<h2>{html.escape(text)}</h2>"
        case Paragraph(text):
            return f"<p>{html.escape(text)}</p>"
        case Figure(file, caption):
            image = base64.b64encode((folder / file).read_bytes()).decode()
            caption = html.escape(caption)
            return (
                f'<figure><img alt="{caption}" src="data:image/png;base64,{image}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
        case Table(header, rows):
            head = "".join(
                f"<th{_kind(cell)}>{html.escape(name)}</th>"
                for name, cell in zip(header, rows[0], strict=True)
            )
            body = "".join("<tr>" + "".join(map(_html_cell, row)) + "</tr>" for row in rows)
            return f'<div class="table"><table><tr>{head}</tr>{body}</table></div>'


def _kind(value: str | int | float) -> str:
    return "" if isinstance(value, str) else ' class="number"'


def _html_cell(value: str | int | float) -> str:
    return f"<td{_kind(value)}>{html.escape(_cell(value))}</td>"
