"""The layout of the web page, at all widths and with long histories: nothing covers anything."""

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -r requirements-dev.txt")

from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from rqrec.evaluation.figures import draw_bars
from rqrec.evaluation.report import figure, paragraph, save_report, shell, table
from tests.serving.page.visitor import Visitor, recommended, search_for, wait_until_loaded

SIZES = {390: 844, 768: 1024, 1280: 900, 1440: 900, 1920: 1080}
FAST = ((390, 200), (768, 4), (1280, 200), (1920, 0))  # the others are slow tests
HISTORIES = {n: "".join(f"&history=item+{item % 40}" for item in range(n)) for n in (0, 4, 200)}
UNREACHABLE = """() => {
    const controls = document.querySelectorAll("button, a, input, select, summary, canvas, [role=button]");
    const seen = [...controls].filter((node) => node.checkVisibility() && !node.matches(".skip"));
    const missed = seen.filter((node) => {
        node.scrollIntoView({ block: "center", inline: "center" });
        const { left, top, width, height } = node.getBoundingClientRect();
        const hit = document.elementFromPoint(left + width / 2, top + height / 2);
        return !(hit && node.contains(hit));
    });
    return [seen.length, missed.map((node) => node.ariaLabel ?? node.textContent ?? node.id)];
}"""
OVERLAPS = """() => {
    const boxes = [...document.querySelectorAll("header, section, footer")];
    const overlap = (one, other) => {
        const [a, b] = [one, other].map((node) => node.getBoundingClientRect());
        return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
    };
    const overlaps = [];
    for (let y = 0; y <= document.documentElement.scrollHeight; y += innerHeight / 2) {
        scrollTo(0, y);
        boxes.forEach((one, i) => boxes.slice(i + 1).forEach((other) => {
            if (overlap(one, other)) overlaps.push([y, one.id, other.id]);
        }));
    }
    return overlaps;
}"""


def test_a_report_fits_a_phone_and_its_tables_scroll_by_themselves(browser: Browser, tmp_path: Path) -> None:
    draw_bars(tmp_path / "bars.png", list("abcdefgh"), {"recall": [0.1] * 8})
    wide = table([f"metric {n}" for n in range(9)], [[f"0.1000 [0.0900, 0.1{n}00]" for n in range(9)]])
    name = "/home/someone/" + 12 * "a_long_folder/"
    blocks = [paragraph(name), wide, shell(f"rqrec serve --artifact {name}"), figure("bars.png", "Bars")]
    save_report(tmp_path, f"model of {name}", blocks)
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    shown, whole = page.locator("table").evaluate("(node) => [node.clientWidth, node.scrollWidth]")
    assert shown < 390 < whole
    page.locator("table").evaluate("(node) => node.scrollTo(node.scrollWidth, 0)")
    expect(page.locator("th").last).to_be_in_viewport(ratio=0.9)
    context.close()


def check_layout(page: Page, width: int) -> None:
    wait_until_loaded(page)
    n_controls, unreachable = page.evaluate(UNREACHABLE)
    assert n_controls > 30
    assert unreachable == []
    assert page.evaluate(OVERLAPS) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize(
    ("width", "n_items"),
    [
        pytest.param(width, n_items, marks=[] if (width, n_items) in FAST else pytest.mark.slow)
        for width in SIZES
        for n_items in HISTORIES
    ],
)
def test_nothing_covers_anything_and_every_control_can_be_clicked(
    visitor: Visitor, width: int, n_items: int
) -> None:
    viewport = {"width": width, "height": SIZES[width]}
    page = visitor.open(f"?k=50{HISTORIES[n_items]}", viewport=viewport)
    expect(page.locator("#recommendations li").first).to_be_visible()
    check_layout(page, width)
    edit = page.get_by_role("button", name="Edit", exact=True)
    assert edit.is_visible() == (width < 760 and n_items > 0)
    if edit.is_visible():
        edit.click()
        check_layout(page, width)
    for earlier in page.get_by_role("button", name="earlier").all():
        earlier.click()
        check_layout(page, width)
    assert page.locator("#history").bounding_box()["height"] < 1.2 * SIZES[width]


def test_on_a_phone_a_history_folds_to_one_line_above_the_recommendations(visitor: Visitor) -> None:
    page = visitor.open(f"?{HISTORIES[200]}", viewport={"width": 390, "height": 844})
    wait_until_loaded(page)
    third = recommended(page).nth(2)
    expect(third).to_be_visible()
    assert third.bounding_box()["y"] < 700
    folded = page.locator("#folded")
    expect(folded).to_contain_text("200 items: Title 39 · Title 38")
    assert folded.bounding_box()["height"] < 30
    search = page.get_by_role("combobox", name="Add an item")
    expect(search).to_be_hidden()
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(search).to_be_visible()
    page.get_by_role("button", name="Done", exact=True).click()
    expect(search).to_be_hidden()


def test_on_a_phone_the_first_visit_shows_examples_and_recommendations_on_one_screen(
    visitor: Visitor,
) -> None:
    page = visitor.open(viewport={"width": 390, "height": 844})
    wait_until_loaded(page)
    expect(page.get_by_role("list", name="Starting points").get_by_role("button")).to_have_count(3)
    expect(recommended(page).first).to_be_in_viewport(ratio=1)
    users = page.get_by_role("group", name="Sample users").get_by_role("button")
    users.last.click()  # beyond the edge: scrolls there
    expect(page.locator("#folded")).to_be_visible()


def test_on_a_phone_the_history_stays_open_while_items_are_added_by_search(visitor: Visitor) -> None:
    page = visitor.open(viewport={"width": 390, "height": 844})
    for title in ("Title 1", "Title 2"):
        search_for(page, title)
        page.keyboard.press("Enter")
        expect(page.locator(".chip").first).to_contain_text(title)
        expect(page.get_by_role("combobox", name="Add an item")).to_be_focused()
    page.get_by_role("button", name="Done", exact=True).click()
    expect(page.locator("#folded")).to_contain_text("2 items")
