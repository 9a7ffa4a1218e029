"""Screenshots of the page for the documentation: `python -m tests.serving.page.screenshots out/demo docs`."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser, Page, sync_playwright

from tests.serving.page.visitor import CHROMIUM, TIMEOUT_MS, wait_until_loaded
from tests.serving.running import running

HISTORY = "?history=1,50,181,172"


class Screenshot(NamedTuple):
    """What the browser is, and the part of the page that is shown; None: the screen."""

    context: dict[str, Any]
    part: str | None = None


WIDE = {"width": 1440, "height": 900}
SCREENSHOTS = {
    "page.png": Screenshot({"viewport": WIDE}),
    "page-dark.png": Screenshot({"viewport": WIDE, "color_scheme": "dark"}),
    "page-phone.png": Screenshot(
        {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True}
    ),
    "map.png": Screenshot({"viewport": {"width": 1280, "height": 900}}, "#explore"),
}


def take_screenshot(browser: Browser, address: str, target: Path, screenshot: Screenshot) -> None:
    """A history with its recommendations, and the map."""
    page: Page = browser.new_context(reduced_motion="reduce", **screenshot.context).new_page()
    page.set_default_timeout(TIMEOUT_MS)
    page.goto(f"{address}/{HISTORY}")
    wait_until_loaded(page)
    if screenshot.part or page.viewport_size == WIDE:
        page.locator("#explore").scroll_into_view_if_needed()
        page.locator("canvas").wait_for()
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(500)  # a few frames
    if screenshot.part:
        page.locator(screenshot.part).screenshot(path=target)
    else:
        page.screenshot(path=target)
    page.context.close()


def main(run: Path, folder: Path) -> None:
    with running({"films": run}) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, screenshot in SCREENSHOTS.items():
            take_screenshot(browser, address, folder / name, screenshot)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
