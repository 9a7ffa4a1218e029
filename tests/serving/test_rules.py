"""Business rules through each door: Python, the command line, HTTP, batches and a service's file of rules."""

import asyncio
import json
from collections.abc import Callable, Iterator
from math import log
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from rqrec import Catalog, Recommender, Rules
from rqrec.cli import app
from rqrec.core.artifact import create
from rqrec.retrieval.artifact import read_retrieval, write_retrieval
from rqrec.serving.app import create_app
from rqrec.serving.config import ServiceConfig
from rqrec.serving.metrics import Metrics
from rqrec.serving.model_registry import ModelRegistry
from rqrec.serving.rules import NamedRules, RuleSettings
from tests.serving.running import LOCAL
from tests.tiny import N_ITEMS

RECOMMEND = "/v1/recommendations"
HISTORIES = [["item 8", "item 9"], [], ["item 40"]]
RULES = Rules(
    "genre = comedy and price < 40",
    {"brand": 2, "first_code": 3},
    {"price >= 10": 1.5, "item_id = 'item 6'": -2},
)
OPTIONS = ("--where", RULES.where, "--max-per", "brand=2, first_code=3")
OPTIONS += ("--boost", "price >= 10: 1.5", "--boost", "item_id = 'item 6': -2")


def genres(item: int) -> str:
    return "Comedy|Drama" if item % 2 == 0 else "Drama"


def brand(item: int) -> str:
    return f"brand {item % 5}"


@pytest.fixture(scope="module")
def run(tiny_joined: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A joined model whose items have fields: genre, price (their number) and one of five brands."""
    artifact = read_retrieval(tiny_joined)
    numbers = range(N_ITEMS)
    fields = {"genre": [*map(genres, numbers)], "price": [*numbers], "brand": [*map(brand, numbers)]}
    items = artifact.catalog.items.with_columns(
        **{name: pl.Series(values) for name, values in fields.items()}
    )
    folder = tmp_path_factory.mktemp("fields") / "model"
    with create(folder, "retrieval", settings={}, inputs={}) as target:
        write_retrieval(target, artifact._replace(catalog=Catalog(items)))
    return folder


@pytest.fixture(scope="module")
def recommender(run: Path) -> Recommender:
    return Recommender.load(run)


@pytest.fixture(scope="module")
def service(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Any], TestClient]]:
    """A client of the service with these named rules."""
    registries = []

    def client(rules: Any) -> TestClient:
        path = tmp_path_factory.mktemp("rules") / "rules.json"
        path.write_text(json.dumps(rules))
        config = ServiceConfig(rules=path, timeout=60.0)
        registries.append(ModelRegistry({"tiny": run}, config, Metrics()))
        return TestClient(create_app(registries[-1], config, Metrics()), LOCAL, raise_server_exceptions=False)

    yield client
    for registry in registries:
        registry.close()


def numbers_of(recommended: Any) -> list[int]:
    return [int(item.item_id.removeprefix("item ")) for item in recommended]


def rqrec(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("experts", [None, ["codes_2"], ["dense"], ["trained"]])
def test_the_list_is_that_of_all_items_with_the_rules_applied_to_it(
    recommender: Recommender, experts: list[str] | None
) -> None:
    recommender = Recommender(recommender.artifact, beam_width=N_ITEMS)  # so that it is exact
    everything = recommender.recommend(HISTORIES, k=N_ITEMS, experts=experts)
    found = recommender.recommend(HISTORIES, k=8, rules=RULES, experts=experts)
    for whole, listed in zip(everything, found, strict=True):
        boosted = {item.item_id: item for item in whole}
        scores = {
            number: item.score + 1.5 * (number >= 10) - 2 * (number == 6)
            for number, item in zip(numbers_of(whole), whole, strict=True)
            if number % 2 == 0 and number < 40
        }
        expected: list[int] = []
        for number in sorted(scores, key=lambda number: -scores[number]):
            codes = [boosted[f"item {n}"].semantic_id[0] for n in (*expected, number)]
            brands = [brand(n) for n in (*expected, number)]
            if codes.count(codes[-1]) <= 3 and brands.count(brands[-1]) <= 2 and len(expected) < 8:
                expected.append(number)
        assert numbers_of(listed) == expected
        assert listed.n_allowed == len(scores)
        if experts == ["codes_2"]:  # of several, a score is that among the candidates
            assert [item.score for item in listed] == pytest.approx([scores[n] for n in expected], abs=1e-4)
            for item in listed:
                assert item.experts["codes_2"] == pytest.approx(boosted[item.item_id].score, abs=1e-4)


def test_a_boost_is_added_log_odds(recommender: Recommender) -> None:
    (plain,) = recommender.recommend([["item 8"]], k=N_ITEMS, experts=["codes_2"])
    (tripled,) = recommender.recommend(
        [["item 8"]], k=N_ITEMS, experts=["codes_2"], rules=Rules(boost={"brand = brand 1": log(3)})
    )
    before = {item.item_id: item.score for item in plain}
    for item, number in zip(tripled, numbers_of(tripled), strict=True):
        added = log(3) if number % 5 == 1 else 0.0
        assert item.score == pytest.approx(before[item.item_id] + added, abs=1e-4)
    assert [item.score for item in tripled] == sorted([item.score for item in tripled], reverse=True)


def test_rules_join_with_allowed_blocked_and_seen_items(recommender: Recommender) -> None:
    history = ["item 0", "item 2"]
    (found,) = recommender.recommend(
        [history],
        k=N_ITEMS,
        rules=Rules("genre = comedy"),
        allow=[f"item {n}" for n in range(10)],
        block=["item 4"],
    )
    assert sorted(numbers_of(found)) == [6, 8]
    assert found.n_allowed == 2
    (seen_too,) = recommender.recommend([history], k=N_ITEMS, rules=Rules("price < 3"), exclude_seen=False)
    assert sorted(numbers_of(seen_too)) == [0, 1, 2]
    (nothing,) = recommender.recommend([history], rules=Rules("price > 1000"))
    assert (len(nothing), nothing.n_allowed) == (0, 0)


def test_a_request_cannot_get_around_the_rules_of_the_service(service: Any) -> None:
    client = service({"mine": {"where": "price < 5", "always": True}})
    for where in ("price = 9) or (price = 8", "price = 9 or price = 8", "not price < 5"):
        answer = client.post(RECOMMEND, json={"history": [], "where": where})
        if ")" in where:
            assert answer.json()["error"]["code"] == "invalid_rules"
        else:
            assert answer.json()["recommendations"][0]["items"] == []


def test_an_item_with_several_values_counts_for_each(recommender: Recommender) -> None:
    (found,) = recommender.recommend([["item 8"]], k=10, rules=Rules(max_per={"genre": 2}))
    assert len(found) == 2  # every item is a drama
    (found,) = recommender.recommend([["item 8"]], k=10, rules=Rules(max_per={"brand": 1}))
    assert len(found) == len({number % 5 for number in numbers_of(found)}) == 5


def test_every_door_gives_the_same_lists(
    recommender: Recommender, run: Path, service: Any, tmp_path: Path
) -> None:
    expected = [
        [(item.item_id, pytest.approx(item.score, abs=1e-4)) for item in recommended]
        for recommended in recommender.recommend(HISTORIES, k=6, rules=RULES)
    ]
    assert all(len(rows) == 6 for rows in expected)
    own = {"where": RULES.where, "max_per": RULES.max_per, "boost": RULES.boost}
    half = {"where": "genre = comedy", "max_per": {"brand": 2}}
    rest = {"where": "price < 40", "max_per": {"first_code": 3, "brand": 7}, "boost": RULES.boost}
    client = service({"comedies": half, "cheap": {**rest, "always": True}, "unused": {"where": "price = 1"}})
    plain = service({"all": own})
    for asked, body in (
        (plain, own),
        (plain, {"rules": ["all"]}),
        (client, {"rules": ["comedies"]}),
        (client, half),
    ):
        answer = asked.post(RECOMMEND, json={"histories": HISTORIES, "k": 6, **body})
        assert answer.status_code == 200, answer.text
        got = [
            [(item["item_id"], item["score"]) for item in one["items"]]
            for one in answer.json()["recommendations"]
        ]
        assert got == expected, body
    for history, rows in zip(HISTORIES, expected, strict=True):
        done = rqrec(
            "recommend", "--artifact", run, "--history", ",".join(history), "--k", 6, *OPTIONS, "--json"
        )
        assert done.exit_code == 0, done.stderr
        printed = json.loads(done.stdout)["recommendations"]
        assert [(item["item_id"], item["score"]) for item in printed] == rows
    source = tmp_path / "users.parquet"
    pl.DataFrame({"user_id": [1, 2, 3], "history": HISTORIES}).write_parquet(source)
    batch = ("batch-recommend", "--artifact", run, "--input", source, "--out", tmp_path / "out", "--k", 6)
    done = rqrec(*batch, *OPTIONS, "--processes", 1)
    assert done.exit_code == 0, done.stderr
    (part,) = (tmp_path / "out").glob("part-*.parquet")
    written = pl.read_parquet(part)
    for ids, scores, rows in zip(written["item_ids"], written["scores"], expected, strict=True):
        assert list(zip(ids, scores, strict=True)) == rows
    for options in (("--where", "price < 40"), ()):
        other = rqrec(*batch, *options, "--processes", 1)
        assert other.exit_code == 1
        assert "was started with different values of: rules" in other.stderr
    (gin,) = [tmp_path / "rules.gin"]
    gin.write_text(
        'recommend.where = "price in (1, 3)"\nrecommend.boost = ("item_id in (\'item 3\', x): 9",)\n'
    )
    done = rqrec("recommend", "--artifact", run, "--history", "item 8", "--config", gin, "--json")
    assert [row["item_id"] for row in json.loads(done.stdout)["recommendations"]] == ["item 3", "item 1"]


def test_models_list_fields_and_named_rules(service: Any) -> None:
    (model,) = service({"one": {"where": "price < 3"}, "two": {}}).get("/v1/models").json()["models"]
    assert model["fields"] == ["item_id", "title", "genre", "price", "brand", "first_code"]
    assert model["rules"] == ["one", "two"]


WRONG = [
    ({"where": "gender = comedy"}, ("--where", "gender = comedy"), "there is no field 'gender'"),
    ({"where": "genre ="}, ("--where", "genre ="), "it ends where a value is expected"),
    ({"max_per": {"colour": 1}}, ("--max-per", "colour=1"), "there is no field 'colour'"),
    ({"boost": {"colour = red": 1}}, ("--boost", "colour = red: 1"), "there is no field 'colour'"),
]


@pytest.mark.parametrize(("body", "options", "problem"), WRONG)
def test_rules_that_do_not_fit_get_one_sentence_with_the_fields(
    body: Any, options: tuple[str, ...], problem: str, run: Path, service: Any, tmp_path: Path
) -> None:
    answer = service({}).post(RECOMMEND, json={"history": [], **body})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "invalid_rules"
    source = tmp_path / "users.csv"
    source.write_text("user_id,history\n1,item 1\n")
    done = rqrec("recommend", "--artifact", run, "--history", "item 1", *options)
    batch = rqrec("batch-recommend", "--artifact", run, "--input", source, "--out", tmp_path / "o", *options)
    assert not (tmp_path / "o").exists()
    with pytest.raises(ValueError, match="do not fit the model tiny") as raised:
        service({"mine": body})
    for message in (error["message"], done.stderr, batch.stderr, str(raised.value)):
        assert problem in message
        assert "item_id, title, genre, price, brand, first_code" in message
    assert (done.exit_code, batch.exit_code) == (1, 1)


def test_values_of_another_type_are_refused(run: Path, service: Any, tmp_path: Path) -> None:
    client = service({"one": {}})
    for body in (
        {"where": 3},
        {"max_per": {"brand": 0}},
        {"max_per": {"brand": 1.5}},
        {"max_per": ["brand"]},
        {"boost": {"price < 3": 1000}},
        {"boost": {"price < 3": "1"}},
        {"rules": "one"},
        {"max_per_code": 1},
    ):
        answer = client.post(RECOMMEND, json={"history": [], **body})
        assert answer.status_code == 422, body
        assert answer.json()["error"]["code"] == "invalid_request", answer.text
    unknown = client.post(RECOMMEND, json={"history": [], "rules": ["one", "other"]})
    assert "There are no rules named 'other'; this service has one." in unknown.json()["error"]["message"]
    for rules, problem in (
        ([], "must hold an object of rules by name"),
        ({"one": {"wher": "price = 1"}}, "rules 'one': they must be an object such as"),
        ({"one": {"max_per": {"brand": "two"}}}, r"rules 'one': max_per\['brand'\] is 'two'"),
        ({" ": {"where": "price = 1"}}, "the name of rules is ' '"),
        ({"one": {"always": "yes"}}, "rules 'one': always is 'yes'"),
    ):
        with pytest.raises(ValueError, match=problem):
            service(rules)
    (tmp_path / "rules.json").write_text("{")
    done = rqrec("serve", "--artifact", run, "--rules", tmp_path / "rules.json")
    assert done.exit_code == 1
    assert "rules.json is not valid JSON" in done.stderr
    for text in (
        '{"a": {"where": "price < 5"}, "a": {"where": "price < 9"}}',
        '{"one": {"boost": {"a": 1, "a": 2}}}',
    ):
        (tmp_path / "rules.json").write_text(text)
        with pytest.raises(ValueError, match=r"rules.json is not valid JSON: 'a' occurs more than once"):
            NamedRules.read(tmp_path / "rules.json")
    for options, problem in (
        ({"max_per": ("brand",)}, "max_per is 'brand', but must end in '=' and a number"),
        ({"max_per": ("brand=1.5",)}, "limits must be whole numbers"),
        ({"boost": ("price < 3",)}, "boost is 'price < 3', but must end in ':' and a number"),
        ({"boost": ("price < 3: 1e9",)}, "must be at least -100.0 and at most 100.0"),
    ):
        with pytest.raises(ValueError, match=problem):
            _ = RuleSettings(**options).rules  # type: ignore[arg-type]


def test_a_reload_reads_the_rules_again(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text('{"mine": {"where": "price < 5", "always": true}}')
    config = ServiceConfig(rules=path, admin_token="x")
    registry = ModelRegistry({"tiny": run}, config, Metrics())
    try:
        client = TestClient(create_app(registry, config, Metrics()), LOCAL)

        def n_allowed() -> int:
            answer = client.post(RECOMMEND, json={"history": []})
            return answer.json()["recommendations"][0]["n_allowed"]

        assert n_allowed() == 5
        path.write_text('{"mine": {"where": "price < 7", "always": true}}')
        assert n_allowed() == 5
        asyncio.run(registry.reload())
        assert n_allowed() == 7
        path.write_text('{"mine": {"where": "cost < 7", "always": true}}')
        refused = client.post("/admin/reload", headers={"Authorization": "Bearer x"})
        assert refused.status_code == 409
        assert "there is no field 'cost'" in refused.json()["error"]["message"]
        assert n_allowed() == 7
    finally:
        registry.close()
