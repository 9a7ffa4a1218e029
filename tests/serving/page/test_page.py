"""The web page, driven in a real browser."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -r requirements-dev.txt")

from playwright.sync_api import Browser, Page, Route, expect

from rqrec import Recommender
from tests.serving.page.visitor import (
    Visitor,
    cells,
    chips,
    crumb,
    options,
    recommended,
    search_for,
    wait_until_loaded,
)
from tests.serving.running import running

LIGHT_AND_DARK = pytest.mark.parametrize("scheme", ["light", "dark"])
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><b>&amp;</b> "


def titles(run: Path, history: list[str], k: int = 10) -> list[str]:
    return [item.title for item in Recommender.load(run).recommend([history], k=k)[0]]


def test_search_pick_and_recommend_by_keyboard(visitor: Visitor, tiny_run: Path) -> None:
    page = visitor.open()
    search_for(page, "Title 1")
    expect(options(page).first).to_have_attribute("aria-selected", "true")
    second = options(page).nth(1).locator("span").first.inner_text()
    page.keyboard.press("ArrowDown")
    box = page.get_by_role("combobox", name="Add an item")
    expect(box).to_have_attribute("aria-activedescendant", "results-1")
    page.keyboard.press("Enter")
    expect(chips(page)).to_have_text([second])
    expect(options(page)).to_have_count(0)
    expect(box).to_be_focused()
    item_id = second.replace("Title", "item")
    expect(recommended(page)).to_have_text(titles(tiny_run, [item_id]))
    assert page.url.endswith(f"?history={item_id.replace(' ', '+')}")


def test_escape_closes_the_search_and_then_clears_it(visitor: Visitor) -> None:
    page = visitor.open()
    search_for(page, "Title 2")
    box = page.get_by_role("combobox", name="Add an item")
    page.keyboard.press("Escape")
    expect(box).to_have_attribute("aria-expanded", "false")
    expect(box).to_have_value("Title 2")
    page.keyboard.press("Escape")
    expect(box).to_have_value("")
    box.press_sequentially("zebra")
    expect(page.get_by_text("Nothing in the catalogue matches “zebra”.").first).to_be_visible()


def test_text_typed_before_the_page_is_ready_is_searched_for(visitor: Visitor) -> None:
    page = visitor.page()
    held: list[Route] = []
    page.route("**/v1/models", lambda route: held.append(route))
    with page.expect_request("**/v1/models"):
        visitor.go(page)
    page.get_by_role("combobox", name="Add an item").press_sequentially("Title 1")
    page.wait_for_timeout(500)  # longer than the debounce time of the search
    held[0].continue_()
    options(page).first.click()
    expect(chips(page)).to_have_count(1)


def test_typing_sends_one_request_and_not_one_per_letter(visitor: Visitor) -> None:
    page = visitor.open()
    urls = []
    page.on("request", lambda request: "query=" in request.url and urls.append(request.url))
    page.evaluate(
        """() => {
            const box = document.getElementById("search");
            for (const text of ["T", "Ti", "Tit", "Title 3"]) {
                box.value = text;
                box.dispatchEvent(new Event("input"));
            }
        }"""
    )
    expect(options(page).first).to_be_visible()
    assert [url.split("query=")[1].split("&")[0] for url in urls] == ["Title+3"]


def test_scores_are_probabilities_and_log_probabilities(visitor: Visitor, tiny_run: Path) -> None:
    page = visitor.open("?history=item+8&history=item+9")
    best = Recommender.load(tiny_run).recommend([["item 8", "item 9"]], k=1)[0][0]
    first = page.locator(".card").first
    log_probability = f"{best.score:.2f}".replace("-", "−")
    expect(first.locator("strong")).to_have_attribute("title", f"log-probability {log_probability}")
    percent = float(first.locator("strong").inner_text().removesuffix(" %"))
    assert percent == pytest.approx(100 * 2.718281828**best.score, rel=0.06)
    expect(first.locator(".codes button")).to_have_text([str(code) for code in best.semantic_id])


def test_why_shows_each_code_with_its_probability_and_other_items(visitor: Visitor, tiny_run: Path) -> None:
    page = visitor.open("?history=item+8&history=item+9")
    recommender = Recommender.load(tiny_run)
    best = recommender.recommend([["item 8", "item 9"]], k=1)[0][0]
    steps = recommender.explain(["item 8", "item 9"], best.item_id).path
    why = page.get_by_role("button", name=f"Why {best.title}")
    why.click()
    expect(why).to_have_attribute("aria-expanded", "true")
    rows = page.locator(".path li")
    expect(rows).to_have_count(len(steps))
    for level, step in enumerate(steps):
        row = rows.nth(level)
        expect(row.locator(".code")).to_have_text(str(step.code))
        share = row.locator(".bar").evaluate("bar => getComputedStyle(bar).getPropertyValue('--share')")
        assert float(share) == pytest.approx(step.probability, abs=1e-4)
        examples = [other.replace("item", "Title") for other in step.others]
        expect(row.locator(".details").get_by_role("button")).to_have_text(examples)
    expect(page.locator(".experts")).to_have_count(0)  # a single expert: the path says it all
    rows.first.locator(".code").click()
    expect(crumb(page)).to_have_text(str(best.semantic_id[0]))


def test_why_shows_what_each_expert_of_a_joined_model_says(visitor: Visitor, tiny_joined: Path) -> None:
    page = visitor.open("?history=item+8&history=item+9&k=50&model=joined")
    expect(page.locator("#model-facts")).to_contain_text("4 experts joined")
    recommender = Recommender.load(tiny_joined)
    (found,) = recommender.recommend([["item 8", "item 9"]], k=50)
    unknown = next(item for item in found if item.experts["neighbours"] == -math.inf)
    requests = []
    page.on("request", lambda request: "recommendations" in request.url and requests.append(request))
    labels = ["Codes", "Codes (codes_2)", "Item vectors", "Neighbours"]
    for item in (found[0], unknown):
        card = page.locator(".card", has=page.get_by_role("button", name=f"Why {item.title}", exact=True))
        card.get_by_role("button", name="Why").click()
        rows = card.locator(".experts li")
        expect(rows.locator(".expert")).to_have_text(labels)
        for row, log_p in zip(rows.all(), item.experts.values(), strict=True):
            share = row.locator(".bar").evaluate("bar => getComputedStyle(bar).getPropertyValue('--share')")
            assert float(share) == pytest.approx(math.exp(log_p), abs=1e-4)
        because = recommender.explain(["item 8", "item 9"], item.item_id).because
        names = [reason.item_id.replace("item", "Title") for reason in because]
        expect(rows.last.locator(".details").get_by_role("button")).to_have_text(names)
        expect(card.locator(".path li")).to_have_count(len(item.semantic_id))
        listed = card.locator(".scores strong").inner_text()
        expect(card.locator(".explanation")).to_contain_text(
            f"The list’s {listed} is its share among the items"
        )
    expect(rows.last).to_have_text("Neighbours0 %Not a neighbour of any item of the history.")
    assert len(requests) == 1  # explains all items


def answer_with(response: dict[str, Any]) -> Callable[[Route], None]:
    return lambda route: route.fulfill(**response)


def test_an_explanation_that_failed_can_be_asked_for_again(lenient_visitor: Visitor) -> None:
    page = lenient_visitor.open("?history=item+8&model=joined")
    expect(recommended(page)).to_have_count(10)
    card = page.locator(".card").first
    failures = (
        ({"status": 503, "json": {"error": {"code": "x", "message": "Later."}}}, "Later."),
        ({"json": {"model": "joined", "recommendations": [{"items": []}]}}, "The model was replaced"),
    )
    for response, message in failures:
        page.route("**/v1/recommendations", answer_with(response))
        card.get_by_role("button", name=re.compile("Why|Try again")).last.click()
        expect(card.get_by_role("alert")).to_contain_text(message)
        page.unroute("**/v1/recommendations")
    card.get_by_role("button", name="Try again").click()
    expect(card.locator(".experts li")).to_have_count(4)


def test_a_sample_users_history_can_be_edited(visitor: Visitor) -> None:
    page = visitor.open()
    user = page.get_by_role("group", name="Sample users").get_by_role("button").nth(2)
    name = user.inner_text()
    user.click()
    expect(user).to_have_attribute("aria-pressed", "true")
    expect(user).to_be_focused()
    assert page.url.endswith("?user=" + name.replace(" ", "+"))
    wait_until_loaded(page)
    before = chips(page).all_inner_texts()
    assert len(before) >= 4
    page.get_by_role("button", name=f"Remove {before[0]}", exact=True).click()
    expect(chips(page)).to_have_text(before[1:])
    expect(page.locator("[data-user][aria-pressed=true]")).to_have_count(0)
    assert page.url.count("history=") == len(before) - 1
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("list", name="Starting points")).to_be_visible()
    expect(page.get_by_text("What people most probably begin with.")).to_be_visible()
    expect(recommended(page)).to_have_count(10)


def test_recommended_items_and_items_of_the_tree_can_be_added_to_the_history(visitor: Visitor) -> None:
    page = visitor.open("?view=tree&history=item+8")
    best = recommended(page).first.inner_text()
    page.get_by_role("button", name=f"Add {best} to the history", exact=True).first.click()
    expect(chips(page)).to_have_text([best, "Title 8"])
    page.locator("#tree").get_by_role("button", name="Add Title 0 to the history", exact=True).click()
    expect(chips(page)).to_have_text(["Title 0", best, "Title 8"])


def test_the_tree_zooms_by_mouse(visitor: Visitor) -> None:
    page = visitor.open("?view=tree")
    code = cells(page).first.locator("strong").inner_text()
    below = page.evaluate(f"() => fetch('v1/semantic-ids/{code}').then(response => response.json())")
    cells(page).first.click()
    expect(crumb(page)).to_have_text(code)
    expect(cells(page)).to_have_count(len(below["children"]))
    expect(page.locator("#node .items li")).to_have_count(below["n_items"])
    assert f"prefix={code}" in page.url
    page.locator("#crumbs").get_by_role("button", name="All items").click()
    expect(crumb(page)).to_have_text("All items")


def test_the_tree_zooms_by_keyboard_down_to_an_item(visitor: Visitor) -> None:
    page = visitor.open("?view=tree")
    cells(page).first.focus()
    page.keyboard.press("ArrowRight")
    expect(cells(page).first).not_to_be_focused()
    expect(page.locator("#node .cell:focus")).to_have_count(1)
    page.keyboard.press("Home")
    depth = 1
    while "Code" in cells(page).first.get_attribute("aria-label"):
        page.keyboard.press("Enter")
        wait_until_loaded(page)
        depth += 1
        expect(page.locator("#crumbs li")).to_have_count(depth)
        expect(cells(page).first).to_be_focused()
    assert depth > 1
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(cells(page).first).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#crumbs li")).to_have_count(depth - 1)
    expect(cells(page).first).to_be_focused()


def test_small_squares_of_the_tree_show_their_codes_and_what_leads_to_recommendations(
    visitor: Visitor,
) -> None:
    def with_many_codes(route: Route) -> None:
        node = route.fetch().json()
        one = node["children"][0]
        known = {child["code"] for child in node["children"]}
        others = [code for code in range(1000) if code not in known][: 200 - len(known)]
        node["children"] = [{**one, "code": code} for code in (*known, *others)]
        route.fulfill(json=node)

    page = visitor.page(viewport={"width": 1440, "height": 900})
    page.route("**/v1/semantic-ids?*", with_many_codes)
    visitor.go(page, "?view=tree&k=5")
    wait_until_loaded(page)
    first_codes = {card.locator(".code").first.inner_text() for card in page.locator(".card").all()}
    leading = page.locator("#node .cell", has=page.locator(".leads"))
    expect(leading).to_have_count(len(first_codes))
    assert {cell.locator("strong").inner_text() for cell in leading.all()} == first_codes
    assert cells(page).first.bounding_box()["width"] < 34  # too small for words
    for face in leading.locator(".face").all():
        assert face.evaluate("face => getComputedStyle(face).outlineWidth") == "2px"
        assert face.evaluate("face => face.scrollHeight <= face.clientHeight")  # nothing is cut off


def test_the_tree_can_be_shown_as_a_list(visitor: Visitor) -> None:
    page = visitor.open("?view=tree")
    wait_until_loaded(page)
    n_codes = cells(page).count()
    page.get_by_role("button", name="List", exact=True).click()
    rows = page.get_by_role("list", name="Codes").get_by_role("button")
    expect(rows).to_have_count(n_codes)
    assert "view=list" in page.url
    rows.first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#crumbs li")).to_have_count(2)
    expect(rows.first).to_be_focused()


def test_all_items_of_a_prefix_can_be_paged_through(visitor: Visitor) -> None:
    page = visitor.open("?view=tree")
    listed = page.locator("#node .items li")
    expect(listed).to_have_count(24)
    page.get_by_role("button", name="Show more items").click()
    expect(listed).to_have_count(48)
    expect(page.get_by_role("button", name="Show more items")).to_be_hidden()
    assert len(set(listed.all_inner_texts())) == 48


def test_an_item_opens_with_its_codes_and_similar_items(visitor: Visitor) -> None:
    page = visitor.open("?item=item+9")
    dialog = page.get_by_role("dialog", name="Title 9")
    expect(dialog.locator(".codes button").first).to_be_visible()
    expect(dialog.locator(".items li")).to_have_count(6)
    other = dialog.locator(".items button").first
    title = other.inner_text()
    other.click()
    expect(page.get_by_role("dialog", name=title)).to_be_visible()
    page.get_by_role("button", name="Add to the history").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(chips(page)).to_have_text([title])


def test_switching_the_model_and_k(visitor: Visitor, tiny_run: Path, other_run: Path) -> None:
    page = visitor.open("?history=item+8&history=item+9")
    expect(page.locator("#model-facts")).to_contain_text("decoder-only")
    expect(recommended(page)).to_have_text(titles(tiny_run, ["item 8", "item 9"]))
    page.get_by_label("Model").select_option("other")
    expect(recommended(page)).to_have_text(titles(other_run, ["item 8", "item 9"]))
    expect(page.locator("#model-facts")).to_contain_text("hierarchical")
    page.get_by_label("Show", exact=True).select_option("20")
    expect(recommended(page)).to_have_text(titles(other_run, ["item 8", "item 9"], k=20))
    assert "k=20" in page.url
    assert "model=other" in page.url


def test_the_url_can_be_shared_and_the_back_button_works(visitor: Visitor) -> None:
    page = visitor.open("?view=tree")
    search_for(page, "Title 30")
    page.keyboard.press("Enter")
    expect(chips(page)).to_have_text(["Title 30"])
    page.get_by_label("Show", exact=True).select_option("5")
    expect(recommended(page)).to_have_count(5)
    cells(page).first.click()
    wait_until_loaded(page)
    shown = [page.locator(part).inner_text() for part in ("#picked", "#recommendations", "#node")]

    again = visitor.open(page.url.rpartition("/")[2])
    expect(again.locator("#crumbs li")).to_have_count(2)
    expect(recommended(again)).to_have_count(5)
    expect(chips(again)).to_have_text(["Title 30"])
    wait_until_loaded(again)
    assert [again.locator(p).inner_text() for p in ("#picked", "#recommendations", "#node")] == shown

    page.go_back()
    expect(page.locator("#crumbs li")).to_have_count(1)
    page.go_back()
    expect(recommended(page)).to_have_count(10)
    page.go_back()
    expect(page.get_by_role("list", name="Starting points")).to_be_visible()
    page.go_forward()
    expect(chips(page)).to_have_text(["Title 30"])


def prefix_titles(prefix: str, page: Page) -> None:
    """Prepend a prefix to every title that the service sends."""

    def change(route: Route) -> None:
        response = route.fetch()
        route.fulfill(
            response=response, body=response.text().replace('"Title ', json.dumps(prefix)[:-1] + "Title ")
        )

    page.route("**/v1/**", change)


def test_titles_are_never_parsed_as_html(visitor: Visitor) -> None:
    page = visitor.page()
    prefix_titles(HOSTILE, page)
    visitor.go(page, "?view=tree&history=item+8&item=item+9&model=joined")
    expect(page.get_by_role("dialog").locator(".items li").first).to_contain_text(HOSTILE)
    page.keyboard.press("Escape")
    expect(chips(page)).to_have_text([f"{HOSTILE}Title 8"])
    page.locator(".card").first.get_by_role("button", name="Why").click()
    expect(page.locator(".path li").first).to_be_visible()
    expect(page.locator(".experts li").last).to_contain_text(HOSTILE)
    search_for(page, "Title")
    expect(options(page).first).to_contain_text(HOSTILE)
    expect(page.locator("#node .items li").first).to_contain_text(HOSTILE)
    assert page.locator("img").count() == 1  # the logo
    assert page.title() == f"After {HOSTILE}Title 8 · joined · rqrec"


@pytest.mark.parametrize("prefix", ["", "Unbreakable" * 30])
def test_the_page_never_scrolls_sideways_on_a_phone(visitor: Visitor, prefix: str) -> None:
    page = visitor.page(viewport={"width": 360, "height": 740}, has_touch=True)
    prefix_titles(prefix, page)
    visitor.go(page, "?view=tree&history=item+8&history=item+9&model=joined")
    page.locator(".card").first.get_by_role("button", name="Why").tap()
    expect(page.locator(".path li").first).to_be_visible()
    expect(cells(page).first).to_be_visible()

    def width() -> int:
        return page.evaluate("document.documentElement.scrollWidth")

    assert width() == 360
    page.get_by_role("button", name="List", exact=True).tap()
    expect(page.get_by_role("list", name="Codes")).to_be_visible()
    page.get_by_role("button", name="Edit", exact=True).tap()
    search_for(page, "Title")
    assert width() == 360
    page.keyboard.press("Escape")
    recommended(page).first.tap()
    expect(page.get_by_role("dialog").locator(".items li").first).to_be_visible()
    assert width() == 360
    assert page.get_by_role("dialog").evaluate("dialog => dialog.scrollWidth <= dialog.clientWidth")


CONTRASTS = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgba = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return canvas.getImageData(0, 0, 1, 1).data;
    };
    const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const background = (node) => {
        for (; node; node = node.parentElement) {
            const color = rgba(getComputedStyle(node).backgroundColor);
            if (color[3] === 255) return color;
        }
        throw new Error("no opaque background");
    };
    const ratio = (color, node) => {
        const [low, high] = [luminance(rgba(color)), luminance(background(node))].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    const contrasts = [];
    for (const node of document.body.querySelectorAll("*")) {
        const hasText = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
        const styles = getComputedStyle(node, node.placeholder ? "::placeholder" : null);
        if (!node.placeholder && !(hasText && node.checkVisibility())) continue;
        contrasts.push([node.placeholder || node.textContent, ratio(styles.color, node)]);
    }
    return contrasts;
}"""


@LIGHT_AND_DARK
def test_every_text_has_enough_contrast(lenient_visitor: Visitor, scheme: str) -> None:
    page = lenient_visitor.open("?history=item+8&history=gone&model=joined", color_scheme=scheme)
    page.locator(".card").first.get_by_role("button", name="Why").click()
    expect(page.locator(".path li").first).to_be_visible()
    expect(page.locator(".notice")).to_be_visible()
    search_for(page, "Title")
    wait_until_loaded(page)
    contrasts = page.evaluate(CONTRASTS)
    page.keyboard.press("Escape")
    recommended(page).first.click()
    expect(page.get_by_role("dialog").locator(".items li").first).to_be_visible()
    contrasts += page.evaluate(CONTRASTS)
    assert len(contrasts) > 150
    assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []
    page_is_dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 22, 24)"
    assert page_is_dark == (scheme == "dark")


@pytest.mark.parametrize(("motion", "animations"), [("reduce", 0), ("no-preference", 1)])
def test_the_map_is_animated_unless_reduced_motion_is_preferred(
    visitor: Visitor, motion: str, animations: int
) -> None:
    page = visitor.page()
    page.emulate_media(reduced_motion=motion)
    page.add_init_script(
        "Element.prototype.animate = () => { globalThis.animations = (globalThis.animations ?? 0) + 1; }"
    )
    visitor.go(page, "?view=tree")
    cells(page).first.click()
    expect(page.locator("#crumbs li")).to_have_count(2)
    wait_until_loaded(page)
    assert page.evaluate("globalThis.animations ?? 0") == animations


def test_unknown_ids_are_listed_and_can_be_removed(visitor: Visitor) -> None:
    page = visitor.page()
    page.route("**/v1/item?*", lambda route: route.fulfill(json={"item_id": "x", "title": "x"}))
    visitor.go(page, "?history=gone&history=item+8")
    expect(page.get_by_text("Not in the catalogue, and therefore ignored: gone.")).to_be_visible()
    expect(recommended(page)).to_have_count(10)
    page.get_by_role("button", name="Remove from the history").click()
    expect(page.locator(".notice")).to_have_count(0)
    expect(page.locator(".chip")).to_have_count(1)
    assert page.url.endswith("?history=item+8")


def test_an_unknown_item_or_prefix_shows_a_message(lenient_visitor: Visitor) -> None:
    page = lenient_visitor.open("?view=tree&item=nowhere&prefix=7-7-7-7")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("nowhere")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#tree").get_by_role("alert")).to_contain_text("starts with")
    page.locator("#crumbs").get_by_role("button", name="All items").click()
    expect(cells(page).first).to_be_visible()


def test_an_unknown_user_shows_a_message(visitor: Visitor) -> None:
    page = visitor.open("?user=nobody")
    expect(page.locator("#history").get_by_role("alert")).to_contain_text("no sample user “nobody”")


FAILURES = {
    "too many": ({"status": 429, "headers": {"Retry-After": "7"}, "body": ""}, "Try again in 7 seconds."),
    "the service's message": (
        {"status": 422, "json": {"error": {"code": "x", "message": "k is 0."}}},
        "k is 0.",
    ),
    "a proxy": ({"status": 502, "body": "<h1>Bad gateway</h1>"}, "The service failed (status 502)."),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_shows_a_message_and_can_be_retried(lenient_visitor: Visitor, failure: str) -> None:
    response, message = FAILURES[failure]
    page = lenient_visitor.page()
    page.route("**/v1/recommendations", lambda route: route.fulfill(**response))
    lenient_visitor.go(page, "?history=item+8")
    alert = page.locator("#recommendations").get_by_role("alert")
    expect(alert).to_contain_text(message)
    page.unroute("**/v1/recommendations")
    alert.get_by_role("button", name="Try again").click()
    expect(recommended(page)).to_have_count(10)
    expect(alert).to_have_count(0)


def test_being_offline_shows_a_message(lenient_visitor: Visitor) -> None:
    page = lenient_visitor.open()
    expect(recommended(page)).to_have_count(10)
    page.context.set_offline(True)
    page.get_by_label("Show", exact=True).select_option("20")
    expect(page.locator("#recommendations").get_by_role("alert")).to_contain_text("You are offline.")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(recommended(page)).to_have_count(20)


def test_an_unreachable_service_shows_a_message(lenient_visitor: Visitor) -> None:
    page = lenient_visitor.page()
    page.route("**/v1/**", lambda route: route.abort())
    lenient_visitor.go(page)
    expect(page.get_by_role("alert")).to_contain_text("The service does not respond.")


def test_a_late_response_never_replaces_a_newer_one(visitor: Visitor) -> None:
    page = visitor.page()
    held: list[Route] = []

    def hold_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/v1/recommendations", hold_first)
    visitor.go(page, "?history=item+8")
    expect(page.locator("#recommendations .loading")).to_be_visible()
    page.get_by_label("Show", exact=True).select_option("5")
    expect(recommended(page)).to_have_count(5)
    assert [route.request.failure for route in held] == ["net::ERR_ABORTED"]


def test_the_content_policy_forbids_other_hosts_and_inline_code(visitor: Visitor) -> None:
    page = visitor.page()
    response = page.request.get(visitor._address)
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert not re.search(r"\son\w+=|\sstyle=|<script(?![^>]*\ssrc=)|https?://", response.text())


def test_a_token_can_be_entered_and_is_sent(browser: Browser, tiny_run: Path) -> None:
    with running({"main": tiny_run}, tokens=("open-sesame",)) as address:
        visitor = Visitor(browser, address)
        page = visitor.open()
        expect(page.get_by_role("alert")).to_contain_text("token")
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Use token").click()
        expect(page.get_by_role("alert")).to_contain_text("token")
        page.get_by_label("Token").fill("open-sesame")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_count(0)  # the page has reloaded
        search_for(page, "title 1")
        options(page).first.click()
        expect(recommended(page)).to_have_count(10)
        page.context.close()
