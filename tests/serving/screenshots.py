"""Screenshots of the page for the documentation: `python -m tests.serving.screenshots out/demo docs`."""

import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from tests.serving.running import running
from tests.serving.visitor import CHROMIUM, TIMEOUT_MS

SCREENSHOTS: dict[str, dict[str, Any]] = {
    "page.png": {"viewport": {"width": 1180, "height": 1160}},
    "page-dark.png": {"viewport": {"width": 390, "height": 1160}, "color_scheme": "dark"},
}


def take_screenshot(browser: Browser, address: str, target: Path, context: dict[str, Any]) -> None:
    """A history with its recommendations, the first of them explained, and the top of the tree."""
    page = browser.new_context(reduced_motion="reduce", **context).new_page()
    page.set_default_timeout(TIMEOUT_MS)
    page.goto(f"{address}/?k=5&history=1&history=50&history=181&history=172")
    page.locator(".card").first.get_by_role("button", name="Why").click()
    page.locator(".path li").first.wait_for()
    page.locator("#node .cell").first.wait_for()
    page.locator("[aria-busy=true]").first.wait_for(state="detached")
    page.evaluate("document.activeElement.blur()")
    page.screenshot(path=target)


def main(run: Path, folder: Path) -> None:
    with running({"films": run}) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, context in SCREENSHOTS.items():
            take_screenshot(browser, address, folder / name, context)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
