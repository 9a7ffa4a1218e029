"""The documentation as a site: it builds without a warning, has every page, and loads nothing from other hosts."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import rqrec

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built_and_reached_from_the_menu(site: Path) -> None:
    start = (site / "index.html").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").is_file()
        assert f'href="{page.stem}.html"' in start, page.name


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    """Links may lead elsewhere; scripts, styles, fonts and pictures may not."""
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\bsrc=\"?([^\"\s>]+)", page.read_text())
        for tag in re.findall(r"<link[^>]*>", page.read_text()):
            if not re.search(r"rel=\"?(canonical|next|prev)", tag):
                loaded += re.findall(r"href=\"?([^\"\s>]+)", tag)
        assert loaded, page
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\"?(https?:)?//", style.read_text()), style


def test_the_api_page_shows_the_docstring_of_every_public_name(site: Path) -> None:
    page = (site / "api.html").read_text()
    for name in rqrec._HOMES:
        assert f'id="{rqrec._HOMES[name]}.{name}"' in page, name


def test_files_outside_docs_that_pages_link_to_are_in_the_site(site: Path) -> None:
    assert (site / "src/rqrec/experiments/recipe.gin").is_file()
    assert "docs/" not in re.findall(r'<img[^>]*src="([^"]*)', (site / "index.html").read_text())[0]
