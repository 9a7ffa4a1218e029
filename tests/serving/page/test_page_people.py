"""What the page tells people: how to begin, what a sample user took next, why by their own items, and filters."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from rqrec import Recommender
from rqrec.serving.explanations import Explanation
from tests.serving.page.visitor import Visitor, chips, options, recommended, search_for


def api(page: Page, visitor: Visitor, path: str) -> list[dict[str, object]]:
    (values,) = page.request.get(f"{visitor._address}/v1/{path}").json().values()
    return values


def test_a_starting_point_fills_the_history(visitor: Visitor) -> None:
    page = visitor.open()
    expect(page.get_by_text("semantic ID: items that are alike")).to_be_visible()
    first = api(page, visitor, "starting-points")[0]
    names = [item["title"] for item in first["items"]]
    page.get_by_role("list", name="Starting points").get_by_role("button").first.click()
    expect(chips(page)).to_have_text(names[::-1])
    expect(page.get_by_role("list", name="Starting points")).to_be_hidden()
    page.get_by_text("Begin with an example").click()
    expect(page.get_by_role("list", name="Starting points")).to_be_visible()


def test_what_a_sample_user_took_next_is_shown_and_whether_it_was_guessed(visitor: Visitor) -> None:
    page = visitor.page()
    users = api(page, visitor, "users")
    guessed = next(user for user in users if user["rank"] == 1)
    late = max(users, key=lambda user: user["rank"])
    visitor.go(page, f"?user={guessed['user_id']}")
    expect(page.locator(".outcome")).to_have_text(
        f"What this person really took next: {guessed['next']['title']}, the model’s first guess."
    )
    expect(page.locator(".card.taken .title")).to_have_text(guessed["next"]["title"])
    visitor.go(page, f"?user={late['user_id']}&k=5")
    place = f"number {late['rank']} of {'this' if late['rank'] <= 5 else 'the model’s'} list."
    if late["rank"] > 1:
        expect(page.locator(".outcome")).to_contain_text(f"{late['next']['title']}, {place}")
    page.locator(".chip .drop").first.click()
    expect(page.locator(".outcome")).to_have_count(0)


def own_items(page: Page, explained: Explanation) -> Locator:
    why = page.get_by_role("button", name=f"Why {explained.recommendation.title}", exact=True)
    card = page.locator(".card", has=why)  # another one may name this title, too, once it says why
    why.click()
    return card.locator(".own-items")


def test_why_speaks_of_the_persons_own_items_first(visitor: Visitor, tiny_joined: Path) -> None:
    page = visitor.open("?history=item+8&history=item+9&model=joined&k=20")
    recommender, history = Recommender.load(tiny_joined), ["item 8", "item 9"]
    (found,) = recommender.recommend([history], k=20)
    explained = [recommender.explain(history, item.item_id) for item in found]
    sharing = next(one for one in explained if one.beside[0].shared)
    most = sharing.beside[0].shared
    near = [one.item_id.replace("item", "Title") for one in sharing.beside if one.shared == most]
    shown = own_items(page, sharing)
    kind = "all" if len(near) > 1 else "both"
    expect(shown).to_contain_text(f"Beside {' and '.join(near)}, which you have: {kind} begin with")
    expect(shown.locator(".code")).to_have_text(
        [str(code) for code in sharing.recommendation.semantic_id[:most]]
    )
    together = next(one for one in explained if one.because and one is not sharing)
    shown = own_items(page, together)
    names = [reason.item_id.replace("item", "Title") for reason in together.because[:3]]
    expect(shown).to_contain_text(f"Often goes with {' and '.join(names)}, which you have.")
    title = shown.locator("p").last.get_by_role("button").first
    assert title.evaluate("title => getComputedStyle(title).display") == "inline"  # breaks as words do
    title.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text(names[0])


def test_without_shared_codes_why_names_the_nearest_item(visitor: Visitor, tiny_run: Path) -> None:
    page = visitor.open("?history=item+8&k=50")
    recommender = Recommender.load(tiny_run)
    (found,) = recommender.recommend([["item 8"]], k=50)
    explained = (recommender.explain(["item 8"], item.item_id) for item in found)
    alone = next(one for one in explained if not one.beside[0].shared)
    expect(own_items(page, alone)).to_have_text(
        "None of your items begins with its first code. By all codes, Title 8 is nearest."
    )


def test_a_facet_becomes_a_filter_that_can_be_removed(visitor: Visitor) -> None:
    page = visitor.open("?history=item+8")
    code = page.locator(".card").first.locator(".code").first.inner_text()
    where = f"`first_code` = {code}"
    visitor.go(page, f"?history=item+8&where={where}")
    firsts = page.locator(".card .codes .code:first-child")
    expect(page.get_by_role("list", name="Filters")).to_contain_text(f"first_code {code}")
    expect(firsts.first).to_have_text(code)
    assert set(firsts.all_inner_texts()) == {code}
    page.get_by_role("button", name="Remove the filter").click()
    expect(recommended(page)).to_have_count(10)
    assert "where" not in page.url
    page.go_back()
    expect(page.get_by_role("list", name="Filters")).to_be_visible()


def test_facets_are_buttons_that_filter(visitor: Visitor) -> None:
    page = visitor.page()
    facet = {"field": "first_code", "value": "A kind", "where": "`first_code` = 1", "label": "A kind"}

    def change(route: Route) -> None:
        response = route.fetch()
        route.fulfill(
            response=response, body=response.text().replace('"facets":[]', f'"facets":[{json.dumps(facet)}]')
        )

    page.route("**/v1/**", change)
    visitor.go(page, "?history=item+8&item=item+9")
    page.get_by_role("dialog").get_by_role("button", name="A kind").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("list", name="Filters")).to_contain_text("first_code 1")
    page.get_by_role("button", name="Remove the filter").click()
    expect(page.get_by_role("list", name="Filters")).to_have_count(0)
    page.locator(".card").first.get_by_role("button", name="A kind").click()
    expect(page.get_by_role("list", name="Filters")).to_contain_text("first_code 1")
    search_for(page, "Title 1")
    expect(options(page).first).to_contain_text("A kind")


def test_a_filter_that_cannot_be_read_shows_a_message_and_can_be_removed(lenient_visitor: Visitor) -> None:
    page = lenient_visitor.open("?history=item+8&where=colour+%3D+red")
    alert = page.locator("#recommendations").get_by_role("alert")
    expect(alert).to_contain_text("'colour = red'")
    alert.get_by_role("button", name="Remove the filter", exact=True).click()
    expect(recommended(page)).to_have_count(10)
    page.goto(f"{page.url}&where=first_code+%3D+1&where=colour+%3D+red")
    expect(alert).to_contain_text("colour = red")
    alert.get_by_role("button", name="Remove the filters", exact=True).click()
    expect(recommended(page)).to_have_count(10)
    assert "where" not in page.url


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Title: Title 9; Kinds: A kind", False),
        ("Title 9, A kind", False),
        ("Title 9, A kind. Nobody is at home.", True),
    ],
)
def test_the_text_of_an_item_is_shown_if_it_says_more_than_the_title_and_facets(
    visitor: Visitor, text: str, shown: bool
) -> None:
    facet = {"field": "kinds", "value": "A kind", "where": "`kinds` = 'A kind'", "label": "A kind"}
    page = visitor.page()
    page.route(
        "**/v1/item?*",
        lambda route: route.fulfill(json={**route.fetch().json(), "text": text, "facets": [facet]}),
    )
    visitor.go(page, "?item=item+9")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="A kind")).to_be_visible()
    expect(dialog.locator("p", has_text=text)).to_have_count(int(shown))


def test_every_item_has_a_tile_with_its_initials(visitor: Visitor) -> None:
    page = visitor.open("?history=item+8")
    expect(page.locator(".card .tile")).to_have_count(10)
    number = recommended(page).first.inner_text().removeprefix("Title ")
    expect(page.locator(".card .tile").first).to_have_text(f"T{number[0]}")
    assert page.locator(".tile img").count() == 0


def test_titles_are_those_of_the_shown_model(visitor: Visitor) -> None:
    page = visitor.page()

    def change(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=response.text().replace('"Title ', '"Other '))

    page.route(re.compile("model=other"), change)
    visitor.go(page, "?history=item+8")
    expect(chips(page)).to_have_text(["Title 8"])
    page.get_by_label("Model").select_option("other")
    expect(chips(page)).to_have_text(["Other 8"])
