"""Fixtures of the web page's tests: one service over tiny models and one browser, for all files."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.serving.running import running
from tests.tiny import train_tiny

if TYPE_CHECKING:  # the tests of the API need no browser
    from playwright.sync_api import Browser

    from tests.serving.page.visitor import Visitor


@pytest.fixture(scope="package")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("other") / "run"
    train_tiny(run, seed=1, iterations=20, name="hierarchical")
    return run


@pytest.fixture(scope="package")
def address(tiny_run: Path, other_run: Path, tiny_joined: Path) -> Iterator[str]:
    with running({"main": tiny_run, "other": other_run, "joined": tiny_joined}) as address:
        yield address


@pytest.fixture(scope="package")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    from tests.serving.page.visitor import CHROMIUM

    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def lenient_visitor(browser: "Browser", address: str) -> Iterator["Visitor"]:
    """For tests that provoke errors."""
    from tests.serving.page.visitor import Visitor

    yield Visitor(browser, address)
    for context in browser.contexts:
        for page in context.pages:
            page.unroute_all(behavior="ignoreErrors")  # a request may be on its way, such as for the map
        context.close()


@pytest.fixture
def visitor(lenient_visitor: "Visitor") -> Iterator["Visitor"]:
    """For tests without errors: no console errors (violations of the content policy included), no other hosts."""
    yield lenient_visitor
    assert lenient_visitor.problems == []
