"""MkDocs hook: one set of relative links works on the code host and on the site.

On the code host, README.md links to `docs/serving.md`, and docs/serving.md to `../README.md` or `../configs/x.gin`.
On the site, the folder docs and the repository's root are one folder: links lose their `docs/` or `../`, and each
file outside docs that a page links to becomes part of the site.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
# The opening bracket, text and parenthesis of a link or an image, then the path that leads to the other folder.
LINK = re.compile(r"(\]\()(docs/|\.\./)([^)\s#]*)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root, and the files outside docs that any page links to."""
    for name in ROOT_PAGES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    pages = [ROOT / name for name in ROOT_PAGES] + sorted((ROOT / "docs").glob("*.md"))
    for name in sorted({name for page in pages for name in linked_files(page)}):
        if files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def linked_files(page: Path) -> set[str]:
    """Files outside docs that a page links to, relative to the root; pages are not among them."""
    targets = re.findall(r"\]\(([^)\s#:]+)", page.read_text())
    paths = [(page.parent / target).resolve() for target in targets]
    outside = [path for path in paths if path.is_file() and (ROOT / "docs") not in path.parents]
    return {path.relative_to(ROOT).as_posix() for path in outside if path.name not in ROOT_PAGES}


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links as they are on the site, and the API of every public name."""
    markdown = LINK.sub(r"\1\3", markdown)
    if page.file.src_uri == "api.md":
        markdown += "\n" + api()
    return markdown


def api() -> str:
    """A heading for each group of public names, and the directive that shows their docstrings."""
    source = (ROOT / "src/rqrec/__init__.py").read_text()
    table = source[source.index("_HOMES = {") :].split("\n}\n")[0]
    lines = []
    for line in table.splitlines()[1:]:
        if group := re.fullmatch(r"\s*# (.+)", line):
            lines += [f"## {group[1]}", ""]
        elif public := re.fullmatch(r'\s*"(\w+)": "([\w.]+)",', line):
            lines += [f"::: {public[2]}.{public[1]}", ""]
    return "\n".join(lines)
