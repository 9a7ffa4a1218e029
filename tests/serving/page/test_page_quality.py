"""How good the web page is to use for everybody: axe, the keyboard, and budgets that do not depend on time."""

from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -r requirements-dev.txt")
pytest.importorskip(
    "axe_playwright_python", reason="axe is not installed: pip install -r requirements-dev.txt"
)

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from tests.serving.page.visitor import Visitor, recommended, search_for, wait_until_loaded

MAX_FIRST_LOAD_BYTES = 150_000
MAX_FIRST_LOAD_REQUESTS = 50
HISTORY = "?history=item+8&history=item+9&model=joined"
TABBABLE = """() => [...document.querySelectorAll(
    "a[href], button, summary, input, select, canvas, [role=button][tabindex], [tabindex='0']"
)].filter((node) => node.checkVisibility() && node.tabIndex >= 0 && !node.disabled).length"""
FOCUSED = """() => {
    const node = document.activeElement;
    const marked = [node, ...node.querySelectorAll("*")].some((each) => {
        const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(each);
        return (outlineStyle !== "none" && parseFloat(outlineWidth) > 0) || boxShadow !== "none";
    });
    node.dataset.reached ??= String(Math.random());
    return [node.dataset.reached, node.tagName, marked, node.ariaLabel ?? node.textContent ?? node.id];
}"""


def violations(page: Page) -> list[Any]:
    """What axe finds wrong with what the page shows now, each with the elements concerned."""
    found = Axe().run(page).response["violations"]
    return [(one["id"], one["help"], [node["html"][:200] for node in one["nodes"]]) for one in found]


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("light", 390),
        ("dark", 1280),
        pytest.param("light", 1280, marks=pytest.mark.slow),
        pytest.param("dark", 390, marks=pytest.mark.slow),
    ],
)
def test_axe_finds_no_violations(lenient_visitor: Visitor, scheme: str, width: int) -> None:
    viewport = {"width": width, "height": 844}
    page = lenient_visitor.open(f"{HISTORY}&history=gone", viewport=viewport, color_scheme=scheme)
    wait_until_loaded(page)
    page.locator("#explore").scroll_into_view_if_needed()
    expect(page.locator("canvas")).to_be_visible()
    page.locator(".card").first.get_by_role("button", name="Why").click()
    expect(page.locator(".path li").first).to_be_visible()
    assert violations(page) == []
    if width == 390:
        page.get_by_role("button", name="Edit", exact=True).click()
    search_for(page, "Title")
    assert violations(page) == []
    page.keyboard.press("Escape")
    for view in ("Tree", "List"):
        page.get_by_role("button", name=view, exact=True).click()
        wait_until_loaded(page)
        expect(page.locator("#node .items li").first).to_be_visible()
        assert violations(page) == []
    page.get_by_label("Compare with").select_option("other")
    expect(page.locator(".compared")).to_have_count(2)
    assert violations(page) == []
    page.locator(".compared .plain").first.click()
    expect(page.get_by_role("dialog").locator(".items li").first).to_be_visible()
    assert violations(page) == []


@pytest.mark.parametrize("view", ["map", "tree", "list"])
def test_every_control_is_reached_by_tab_and_shows_the_focus(visitor: Visitor, view: str) -> None:
    page = visitor.open(f"{HISTORY}&view={view}", viewport={"width": 1280, "height": 900})
    wait_until_loaded(page)
    page.locator("#explore").scroll_into_view_if_needed()
    expect(page.locator("canvas, #node .items li").first).to_be_visible()
    page.evaluate("scrollTo(0, 0)")
    expected = page.evaluate(TABBABLE)
    reached: dict[str, str] = {}
    for _ in range(expected + 5):
        page.keyboard.press("Tab")
        key, tag, marked, name = page.evaluate(FOCUSED)
        if tag == "BODY" or key in reached:
            break
        assert marked, f"{name} does not show the focus"
        reached[key] = name
    assert len(reached) == expected


def test_the_first_load_is_small(visitor: Visitor) -> None:
    page = visitor.page(viewport={"width": 1280, "height": 900})
    network = page.context.new_cdp_session(page)
    sizes: list[float] = []
    network.send("Network.enable")
    network.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    visitor.go(page, HISTORY)
    wait_until_loaded(page)
    page.wait_for_load_state("networkidle")
    assert 20 < len(sizes) <= MAX_FIRST_LOAD_REQUESTS
    assert 10_000 < sum(sizes) <= MAX_FIRST_LOAD_BYTES


def test_the_first_paint_waits_for_no_answer_and_the_recommendations_not_for_the_map(
    visitor: Visitor,
) -> None:
    page = visitor.page(viewport={"width": 1440, "height": 900})
    held: list[Route] = []
    maps: list[Route] = []
    page.route("**/v1/models", lambda route: held.append(route))
    page.route("**/v1/map?*", lambda route: maps.append(route))
    visitor.go(page, HISTORY)
    expect(page.get_by_role("heading", name="Recommendations", exact=True)).to_be_visible()
    page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length === 1")
    expect(recommended(page)).to_have_count(0)
    held[0].continue_()
    expect(recommended(page)).to_have_count(10)
    expect(page.get_by_text("Finding a place for every item")).to_be_visible()
    assert len(maps) == 1
    maps[0].continue_()
    expect(page.locator("canvas")).to_be_visible()
