"""Two models side by side on the web page, and the page's title and short URLs."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install -r requirements-dev.txt")

from playwright.sync_api import Browser, Locator, Page, expect

from rqrec import Recommender
from tests.serving.page.visitor import Visitor, chips, options, recommended, wait_until_loaded
from tests.serving.running import running

HISTORY = ["item 8", "item 9"]


def lists(page: Page) -> tuple[Locator, Locator]:
    sides = page.locator(".compared")
    expect(sides).to_have_count(2)
    return sides.first.locator("li"), sides.last.locator("li")


def check_lists(page: Page, first: list[str], second: list[str]) -> None:
    """Whether both lists are shown, and each item with how it differs from the other list."""
    left, right = lists(page)
    expect(left.locator(".plain")).to_have_text(first)
    expect(right.locator(".plain")).to_have_text(second)
    for row, title in zip(left.all(), first, strict=True):
        assert ("only here" in row.inner_text()) == (title not in second)
    for rank, (row, title) in enumerate(zip(right.all(), second, strict=True)):
        text = row.locator(".move").inner_text()
        if title not in first:
            assert text == "only here"
        elif first.index(title) == rank:
            assert text == "="
        else:
            shift = first.index(title) - rank
            assert text == f"{'▲' if shift > 0 else '▼'} {abs(shift)}"
    n_shared = len(set(first) & set(second))
    noun = "No item is" if n_shared == 0 else f"{n_shared} item{'s' if n_shared > 1 else ''} of {len(first)}"
    expect(page.locator("#comparison .lead").first).to_contain_text(noun)


def titles(run: Path, experts: list[str] | None = None) -> list[str]:
    return [item.title for item in Recommender.load(run).recommend([HISTORY], k=10, experts=experts)[0]]


def test_two_models_are_compared(visitor: Visitor, tiny_run: Path, other_run: Path) -> None:
    page = visitor.open("?history=item+8,item+9")
    expect(recommended(page)).to_have_text(titles(tiny_run))
    page.get_by_label("Compare with").select_option("other")
    check_lists(page, titles(tiny_run), titles(other_run))
    assert page.url.endswith("&compare=other")
    assert page.title() == "After Title 9 and 1 more · main and other · rqrec"
    lists(page)[1].first.locator(".plain").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_label("Compare with").select_option("nothing")
    expect(page.locator(".compared")).to_have_count(0)
    expect(recommended(page).first).to_be_visible()


def test_a_model_is_compared_with_one_of_its_experts(visitor: Visitor, tiny_joined: Path) -> None:
    page = visitor.open("?history=item+8&history=item+9&model=joined")
    page.get_by_label("Compare with").select_option(label="joined: neighbours alone")
    neighbours = titles(tiny_joined, ["neighbours"])
    check_lists(page, titles(tiny_joined), neighbours)
    again = visitor.open(page.url.rpartition("/")[2])
    check_lists(again, titles(tiny_joined), neighbours)
    expect(again.get_by_label("Compare with").locator("option:checked")).to_have_text(
        "joined: neighbours alone"
    )


def test_a_model_is_compared_with_popularity(visitor: Visitor, tiny_run: Path) -> None:
    page = visitor.open("?history=item+8&history=item+9")
    page.get_by_label("Compare with").select_option(label="main: popularity")
    popular = titles(tiny_run, ["popularity"])
    check_lists(page, titles(tiny_run), popular)
    expect(page.locator(".side h3").last).to_have_text("main: popularity")
    again = visitor.open(page.url.rpartition("/")[2])
    check_lists(again, titles(tiny_run), popular)


def test_a_comparison_that_failed_can_be_retried(lenient_visitor: Visitor) -> None:
    page = lenient_visitor.open("?history=item+8&compare=other&expert=nobody")
    expect(page.locator("#comparison").get_by_role("alert")).to_contain_text("nobody")
    page.get_by_label("Compare with").select_option("other")
    lists(page)


def test_a_single_expert_without_a_dataset_cannot_be_compared(
    browser: Browser, tiny_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run / "retrieval", tmp_path / "retrieval")
    with running({"main": tmp_path}) as address:
        visitor = Visitor(browser, address)
        page = visitor.open("?history=item+8")
        wait_until_loaded(page)
        expect(page.get_by_label("Compare with")).to_be_hidden()
        assert page.title() == "After Title 8 · rqrec"
        page.context.close()


def test_a_history_may_be_separated_by_commas(visitor: Visitor) -> None:
    page = visitor.open("?history=item+8,item+9,%20item+10")
    expect(chips(page)).to_have_text(["Title 10", "Title 9", "Title 8"])
    assert page.title() == "After Title 10 and 2 more · main · rqrec"


def test_an_id_with_a_comma_stays_one_id(lenient_visitor: Visitor) -> None:
    page = lenient_visitor.page()
    item = {"item_id": "a,b", "title": "A, b", "semantic_id": [0]}
    page.route("**/v1/items?*", lambda route: route.fulfill(json={"items": [item], "total": 1}))
    lenient_visitor.go(page)
    page.get_by_role("combobox", name="Add an item").press_sequentially("a")
    options(page).first.click()
    expect(chips(page)).to_have_text(["A, b"])
    page.reload()
    expect(page.locator(".chip")).to_have_count(1)
    expect(page.get_by_text("Not in the catalogue, and therefore ignored: a,b.")).to_be_visible()


def test_the_title_names_a_sample_user(visitor: Visitor) -> None:
    page = visitor.open()
    assert page.title().endswith("rqrec")
    user = page.get_by_role("group", name="Sample users").get_by_role("button").first
    name = user.inner_text()
    user.click()
    expect(page).to_have_title(f"User {name} · main · rqrec")
