"""The map of items on the web page: what it draws, and how it is used by mouse, touch and keyboard."""

import math
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -r requirements-dev.txt")

from playwright.sync_api import Locator, Page, Route, expect

from tests.serving.page.visitor import Visitor, recommended, wait_until_loaded
from tests.tiny import N_ITEMS

PLACES = """async () => {
    const { wholeView } = await import("/static/view.js");
    const map = await fetch("v1/map").then((response) => response.json());
    const canvas = document.querySelector("canvas");
    const { kx, ky, x, y } = wholeView(canvas.width, canvas.height);
    return map.item_ids.map((id, i) => [id, map.x[i] / map.side * kx + x, map.y[i] / map.side * ky + y]);
}"""
PIXEL = """([x, y]) => [...document.querySelector("canvas").getContext("2d")
    .getImageData(Math.round(x), Math.round(y), 1, 1).data]"""


def open_map(visitor: Visitor, query: str = "", **context: Any) -> tuple[Page, Locator]:
    """The page at device pixel ratio 1, scrolled to the map that it shows."""
    page = visitor.open(query, **{"viewport": {"width": 1280, "height": 900}, **context})
    wait_until_loaded(page)
    page.locator("#explore").scroll_into_view_if_needed()
    canvas = page.locator("canvas")
    expect(canvas).to_be_visible()
    canvas.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('canvas').getContext('2d').getImageData(0, 0, 1, 1)")
    wait_until_drawn(page)
    return page, canvas


def wait_until_drawn(page: Page) -> None:
    """Wait for the frame that draws what has been asked for so far."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def places(page: Page) -> dict[str, tuple[float, float]]:
    """Where each item is drawn, in pixels of the canvas, while the whole map is shown."""
    return {item_id: (x, y) for item_id, x, y in page.evaluate(PLACES)}


def lone_place(page: Page) -> tuple[float, float]:
    """The place of the item that is farthest from others."""
    drawn = list(places(page).values())
    return max(drawn, key=lambda one: min(math.dist(one, other) for other in drawn if other is not one))


def hover(canvas: Locator, place: tuple[float, float]) -> None:
    canvas.hover(position={"x": place[0], "y": place[1]})


def tip(page: Page) -> Locator:
    return page.locator(".map-tip")


def title_shown(page: Page) -> str:
    """The title in the tip of the map as it is drawn by now."""
    wait_until_drawn(page)
    expect(tip(page)).to_be_visible()
    return tip(page).inner_text()


def wait_until_zoomed(page: Page) -> None:
    """Wait until the map has taken a turn of the wheel or a pinch, for which the browser does not wait itself."""
    page.wait_for_function("() => document.querySelector('canvas').style.touchAction === 'none'")


def test_every_item_is_drawn(visitor: Visitor) -> None:
    page, _ = open_map(visitor)
    drawn = places(page)
    assert len(drawn) == N_ITEMS
    assert all(page.evaluate(PIXEL, place)[3] > 100 for place in drawn.values())
    assert page.evaluate(PIXEL, (2, 2))[3] == 0


def test_the_map_takes_the_colours_of_a_dark_page_at_once_and_back(visitor: Visitor) -> None:
    page, _ = open_map(visitor, color_scheme="light")
    drawn = list(places(page).values())

    def colours() -> list[list[int]]:
        wait_until_drawn(page)
        return [page.evaluate(PIXEL, place) for place in drawn]

    light = colours()
    page.emulate_media(color_scheme="dark")
    dark = colours()
    assert all(one != other for one, other in zip(light, dark, strict=True))
    page.emulate_media(color_scheme="light")
    assert colours() == light


def test_hovering_shows_a_title_and_a_click_opens_the_item(visitor: Visitor) -> None:
    page, canvas = open_map(visitor)
    place = lone_place(page)
    expect(tip(page)).to_be_hidden()
    hover(canvas, place)
    title = title_shown(page)
    assert title.startswith("Title ")
    canvas.click(position={"x": place[0], "y": place[1]})
    expect(page.get_by_role("dialog", name=title, exact=True)).to_be_visible()
    page.get_by_role("button", name="Close").click()
    page.mouse.move(1, 1)
    expect(tip(page)).to_be_hidden()


def test_the_history_and_the_recommendations_are_marked(visitor: Visitor) -> None:
    page, _ = open_map(visitor, "?k=3&history=item+30&history=item+8")
    best = {title.replace("Title", "item") for title in recommended(page).all_inner_texts()}
    where = places(page)
    drawn = {item_id: page.evaluate(PIXEL, place) for item_id, place in where.items()}
    star, dot, width = [255, 254, 251, 255], [32, 37, 43, 255], 16

    def is_near(item_id: str, others: set[str]) -> bool:
        return any(math.dist(where[item_id], where[other]) < width for other in others)

    assert all(drawn[item_id] == star for item_id in best)
    history = {"item 30", "item 8"}
    beside = {
        item_id for item_id in history if not is_near(item_id, best)
    }  # a recommendation may cover the others
    assert beside
    assert all(drawn[item_id] == dot for item_id in beside)
    far = [drawn[item_id] for item_id in where if not is_near(item_id, best | history)]
    assert far
    assert star not in far
    assert dot not in far


def test_the_wheel_zooms_and_scrolls_on_at_the_end(visitor: Visitor) -> None:
    page, canvas = open_map(visitor)
    place = lone_place(page)
    hover(canvas, place)
    title = title_shown(page)
    scrolled = page.evaluate("scrollY")
    page.mouse.wheel(0, -600)
    wait_until_zoomed(page)
    page.mouse.move(1, 1)
    hover(canvas, place)
    expect(tip(page)).to_have_text(title)  # what is under the pointer stays there
    page.mouse.wheel(0, 1500)
    page.wait_for_function("() => document.querySelector('canvas').style.touchAction === 'pan-y'")
    assert page.evaluate("scrollY") == scrolled
    page.mouse.wheel(0, 300)
    page.mouse.wheel(0, -100)
    wait_until_zoomed(page)


def test_dragging_moves_a_map_that_is_zoomed(visitor: Visitor) -> None:
    page, canvas = open_map(visitor)
    place = lone_place(page)
    hover(canvas, place)
    title = title_shown(page)
    page.mouse.wheel(0, -400)
    wait_until_zoomed(page)
    box = canvas.bounding_box()
    dx = 80 if place[0] < box["width"] / 2 else -80
    page.mouse.down()
    page.mouse.move(box["x"] + place[0] + dx, box["y"] + place[1], steps=4)
    page.mouse.up()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.mouse.move(1, 1)
    hover(canvas, (place[0] + dx, place[1]))
    expect(tip(page)).to_have_text(title)


def test_the_map_is_used_by_keyboard(visitor: Visitor) -> None:
    page, canvas = open_map(visitor)
    page.get_by_role("button", name="List", exact=True).focus()
    page.keyboard.press("Tab")
    expect(canvas).to_be_focused()
    first = title_shown(page)
    expect(page.locator("#status")).to_have_text(first)
    whole = canvas.screenshot()
    page.keyboard.press("+")
    page.keyboard.press("+")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(tip(page)).not_to_have_text(first)
    title = title_shown(page)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name=title, exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    expect(canvas).to_be_focused()
    page.keyboard.press("-")
    page.keyboard.press("0")
    expect(tip(page)).to_have_text(first)
    wait_until_drawn(page)
    assert canvas.screenshot() == whole


def test_two_fingers_zoom_and_a_tap_shows_the_title_first(visitor: Visitor) -> None:
    page, canvas = open_map(visitor, viewport={"width": 390, "height": 844}, has_touch=True)
    place = lone_place(page)
    box = canvas.bounding_box()
    x, y = box["x"] + place[0], box["y"] + place[1]
    page.touchscreen.tap(x, y)
    expect(tip(page)).to_be_visible()
    title = title_shown(page)
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.touchscreen.tap(x, y)
    expect(page.get_by_role("dialog", name=title, exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    touch = page.context.new_cdp_session(page)
    middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    for kind, gap in (("touchStart", 20), ("touchMove", 40), ("touchMove", 80), ("touchEnd", None)):
        points = [] if gap is None else [{"x": middle[0] + side * gap, "y": middle[1]} for side in (-1, 1)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    wait_until_zoomed(page)


def test_the_buttons_zoom(visitor: Visitor) -> None:
    page, canvas = open_map(visitor)
    whole = canvas.evaluate("canvas => canvas.toDataURL()")
    page.get_by_role("button", name="Zoom in").click()
    page.wait_for_function("whole => document.querySelector('canvas').toDataURL() !== whole", arg=whole)
    page.get_by_role("button", name="Zoom out").click()
    page.wait_for_function("whole => document.querySelector('canvas').toDataURL() === whole", arg=whole)
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Show all items").click()
    page.wait_for_function("whole => document.querySelector('canvas').toDataURL() === whole", arg=whole)


def test_the_page_waits_for_a_map_that_is_being_made_and_reports_one_that_failed(
    lenient_visitor: Visitor,
) -> None:
    page = lenient_visitor.page()
    asked: list[Route] = []
    failure = {"error": {"code": "map_failed", "message": "No map."}}

    def answer(route: Route) -> None:
        asked.append(route)
        if len(asked) == 1:
            route.fulfill(status=202, json={"status": "being made"})
        elif len(asked) == 2:
            route.fulfill(status=500, json=failure)
        else:
            route.continue_()

    page.route("**/v1/map", answer)
    lenient_visitor.go(page)
    page.locator("#explore").scroll_into_view_if_needed()
    expect(page.get_by_text("Finding a place for every item")).to_be_visible()
    expect(recommended(page).first).to_be_visible()  # nothing else waits
    page.locator("#item-map").get_by_role("alert").get_by_role("button", name="Try again").click()
    expect(page.locator("canvas")).to_be_visible()
