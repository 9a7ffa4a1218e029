"""The web page in a real browser: opens it, and finds its parts."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Locator, Page, Request, expect

CHROMIUM = Path("/usr/bin/chromium")
TIMEOUT_MS = 60_000
expect.set_options(timeout=TIMEOUT_MS)


class Visitor:
    """Opens the page and collects its console errors, exceptions and requests to other hosts."""

    def __init__(self, browser: Browser, address: str) -> None:
        self._browser = browser
        self._address = address
        self.problems: list[str] = []

    def page(self, **context: Any) -> Page:
        """A blank page in a new browser context."""
        page = self._browser.new_context(reduced_motion="reduce", **context).new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", self._check_host)
        return page

    def open(self, query: str = "", **context: Any) -> Page:
        page = self.page(**context)
        self.go(page, query)
        return page

    def go(self, page: Page, query: str = "") -> None:
        page.goto(f"{self._address}/{query}")

    def _check_host(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self._address).netloc:
            self.problems.append(f"request to another host: {request.url}")


def recommended(page: Page) -> Locator:
    return page.locator("#recommendations .card .title")


def chips(page: Page) -> Locator:
    return page.locator(".chip .plain")


def cells(page: Page) -> Locator:
    return page.locator("#node .cell")


def options(page: Page) -> Locator:
    return page.get_by_role("listbox", name="Search results").get_by_role("option")


def crumb(page: Page) -> Locator:
    return page.locator("#crumbs [aria-current]")


def search_for(page: Page, query: str) -> None:
    page.get_by_role("combobox", name="Add an item").fill(query)  # one event: no results of a part of it
    expect(options(page).first).to_be_visible()


def wait_until_loaded(page: Page) -> None:
    """Wait until the page has started and nothing is loading."""
    expect(page.locator("#recommendations .content > *").first).to_be_attached()
    expect(page.locator("[aria-busy=true], .loading")).to_have_count(0)
