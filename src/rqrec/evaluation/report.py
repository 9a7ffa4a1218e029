"""Reports: Markdown built from a few blocks, and the same Markdown rendered as one self-contained HTML page."""

import base64
import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from rqrec.core.artifact import atomic_write

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem;
  overflow-wrap: break-word; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-size: .95rem; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: left; }
th { background: var(--soft); } td { font-variant-numeric: tabular-nums; }
img { display: block; max-width: 100%; height: auto; }
pre { background: var(--soft); padding: .6rem .8rem; overflow-x: auto; }
.caption { font-size: .9rem; opacity: .75; }
"""
# What Markdown would interpret, within a line and at the start of a paragraph; a backslash makes it plain text.
_INLINE = re.compile(r"[\\`*~#<|]|](?=[(\[:])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)")
_NUMBER = re.compile(r"[-+]?[\d,]+(\.\d+)?( ?%)?")
_START = re.compile(r"^(\d*)(?=[>+=.)-])")


def heading(text: str, level: int = 2) -> str:
    """A heading; level 1 is the title."""
    return f"{'#' * level} {_escape(text)}"


def paragraph(text: str) -> str:
    """Plain text: Markdown in it is escaped."""
    return _START.sub(r"\1\\", _escape(text))


def table(header: Sequence[str], rows: Sequence[Sequence[str | int | float]]) -> str:
    """A table; columns of numbers are aligned to the right, floats are shown with 4 decimals."""
    numeric = [all(map(_is_number, (row[column] for row in rows))) for column in range(len(header))]
    ruler = "| " + " | ".join("---:" if right else "---" for right in numeric) + " |"
    head, *body = ("| " + " | ".join(map(_cell, line)) + " |" for line in (header, *rows))
    return "\n".join([head, ruler, *body])


def link(text: str, url: str) -> str:
    """A paragraph that is a link."""
    return f"[{_escape(text)}](<{url}>)"


def shell(*lines: str) -> str:
    """Lines for a shell."""
    return "\n".join(["```", *lines, "```"])


def figure(file: str, caption: str) -> str:
    """A PNG file of the report's folder."""
    return f"![{_escape(caption)}]({file})"


def save_report(folder: Path, title: str, blocks: Iterable[str]) -> None:
    """Write `report.md` and `report.html` into `folder`; the page contains its figures and needs no other file."""
    markdown = "\n\n".join([heading(title, level=1), *blocks]) + "\n"
    # Only these rules, so that HTML and other markup in a text are shown literally; links are escaped in texts.
    rules = ["heading", "table", "image", "escape", "link", "fence"]
    renderer = MarkdownIt("zero", {"html": False}).enable(rules)
    renderer.add_render_rule("image", _inline_image)
    page = (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f"{renderer.render(markdown, {'folder': folder})}</html>\n"
    )
    for name, text in (("report.md", markdown), ("report.html", page)):
        with atomic_write(folder / name) as file:
            file.write(text.encode())


def _escape(text: str) -> str:
    return _INLINE.sub(r"\\\g<0>", " ".join(text.split()))


def _is_number(value: str | int | float) -> bool:
    """Whether a value is a number, or one that is written for people, such as "1,682" or "3.5 %"."""
    return not isinstance(value, str) or bool(_NUMBER.fullmatch(value))


def _cell(value: str | int | float) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else _escape(str(value))


def _inline_image(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    """The image as a data URI, with its caption below."""
    data = base64.b64encode((env["folder"] / tokens[index].attrs["src"]).read_bytes()).decode()
    caption = html.escape(renderer.renderInlineAsText(tokens[index].children, options, env))
    return f'<img alt="{caption}" src="data:image/png;base64,{data}"><span class="caption">{caption}</span>'
