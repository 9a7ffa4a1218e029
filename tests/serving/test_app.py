"""The HTTP API as a client sees it."""

import html
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from rqrec import Recommender
from rqrec.core.artifact import create
from rqrec.models.architectures import build_model
from rqrec.models.hierarchical import HierarchicalConfig
from rqrec.retrieval.artifact import RetrievalArtifact, read_retrieval, write_retrieval
from rqrec.serving import middleware
from rqrec.serving.app import create_app
from rqrec.serving.config import ServiceConfig
from rqrec.serving.logs import LOG, JsonFormatter
from rqrec.serving.metrics import Metrics
from rqrec.serving.model_registry import ModelRegistry, parse_sources
from rqrec.serving.web_page import WebPage
from tests.serving.running import LOCAL
from tests.tiny import N_ITEMS, SIZE

RECOMMEND = "/v1/recommendations"


def items(*numbers: int) -> list[str]:
    return [f"item {number}" for number in numbers]


@pytest.fixture(scope="module")
def recommender(tiny_run: Path) -> Recommender:
    return Recommender.load(tiny_run)


@pytest.fixture(scope="module")
def registry(tiny_run: Path) -> Iterator[ModelRegistry]:
    sources = {"tiny": tiny_run, "bare": tiny_run / "retrieval"}
    registry = ModelRegistry(sources, ServiceConfig(max_queue=4, max_wait_ms=1.0), Metrics())
    yield registry
    registry.close()


Service = Callable[..., TestClient]


@pytest.fixture(scope="module")
def service(registry: ModelRegistry) -> Service:
    """A client of the service with the given options; server errors come back as a status."""

    def client_with(page: WebPage | None = None, **options: Any) -> TestClient:
        app = create_app(registry, ServiceConfig(**options), Metrics(), page)
        return TestClient(app, LOCAL, raise_server_exceptions=False)

    return client_with


@pytest.fixture(scope="module")
def client(service: Service) -> TestClient:
    return service()


def assert_refused(response: Any, status: int, code: str, *expected: str) -> None:
    """The response has the common error shape, with a one-sentence message and no traceback."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"] == code
    assert error["request_id"] == response.headers["X-Request-ID"]
    assert error["message"].endswith(".")
    assert len(error["message"]) < 1000
    assert "Traceback" not in response.text
    for part in expected:
        assert part in error["message"]


def test_one_history_gets_the_recommenders_results(client: TestClient, recommender: Recommender) -> None:
    response = client.post(RECOMMEND, json={"history": items(8, 9), "k": 3})
    assert response.status_code == 200
    body = response.json()
    assert body["model"] == "tiny"
    (result,) = body["recommendations"]
    (expected,) = recommender.recommend([items(8, 9)], k=3)
    assert (result["n_allowed"], result["skipped"]) == (N_ITEMS - 2, [])
    for item, other in zip(result["items"], expected, strict=True):
        assert (item["item_id"], item["title"]) == (other.item_id, other.title)
        assert item["semantic_id"] == list(other.semantic_id)
        assert item["score"] == pytest.approx(other.score, abs=1e-5)
        assert "path" not in item


def test_several_histories_are_answered_in_order_with_all_options(client: TestClient) -> None:
    request = {
        "histories": [["gone", *items(0, 1)], [], items(17)],
        "k": 2,
        "allow": items(*range(8)),
        "block": ["lost", *items(2)],
        "max_per": {"first_code": 2},
        "exclude_seen": False,
        "unknown": "skip",
        "explain": True,
        "model": "bare",
    }
    body = client.post(RECOMMEND, json=request).json()
    assert body["model"] == "bare"
    first, second, third = body["recommendations"]
    assert first["skipped"] == ["gone", "lost"]
    assert second["skipped"] == third["skipped"] == ["lost"]
    for result in (first, second, third):
        assert result["n_allowed"] == 7
        assert len(result["items"]) == 2
        for item in result["items"]:
            assert item["item_id"] in set(items(*range(8))) - set(items(2))
            assert [step["code"] for step in item["path"]] == item["semantic_id"]
            product = 1.0
            for step in item["path"]:
                product *= step["probability"]
                assert len(step["others"]) <= min(3, step["n_items"] - 1)
                assert item["item_id"] not in [other["item_id"] for other in step["others"]]
            assert product == pytest.approx(2.718281828 ** item["score"], rel=1e-3)


def test_concurrent_requests_with_different_filters_get_their_own_answers(service: Service) -> None:
    client = service()
    results: dict[int, Any] = {}

    def ask(family: int) -> None:
        allow = items(*range(family * SIZE, family * SIZE + SIZE)) if family % 2 else None
        request = {"history": items(family * SIZE), "k": 3, "allow": allow}
        response = client.post(RECOMMEND, json=request)
        while response.status_code == 429:
            response = client.post(RECOMMEND, json=request)
        results[family] = response.json()["recommendations"][0]

    threads = [threading.Thread(target=ask, args=(family,)) for family in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for family, result in results.items():
        assert result["n_allowed"] == (SIZE - 1 if family % 2 else N_ITEMS - 1)
        if family % 2:
            assert {int(item["item_id"].removeprefix("item ")) // SIZE for item in result["items"]} == {
                family
            }
    assert len(results) == 6


def test_models_and_users(client: TestClient, recommender: Recommender) -> None:
    tiny, bare = client.get("/v1/models").json()["models"]
    assert (tiny["name"], tiny["default"], bare["name"], bare["default"]) == ("tiny", True, "bare", False)
    assert tiny["architecture"] == "decoder_only"
    assert tiny["n_items"] == N_ITEMS
    assert tiny["level_sizes"][:2] == [8, 8]
    assert tiny["parameters"] > 1000
    users = client.get("/v1/users").json()["users"]
    assert len(users) == 12
    assert {user["rank"] for user in users} != {None}
    for user in users:
        numbers = [int(item["item_id"].removeprefix("item ")) for item in [*user["history"], user["next"]]]
        assert len({number // SIZE for number in numbers}) == 1
        following = numbers.pop()
        assert following == numbers[-1] // SIZE * SIZE + (numbers[-1] + 1) % SIZE
        (found,) = recommender.recommend([items(*numbers)], k=100)
        ids = [item.item_id for item in found]
        assert user["rank"] == ids.index(f"item {following}") + 1
        assert user["history"][0]["title"] == f"Title {numbers[0]}"
        assert client.post(RECOMMEND, json={"history": items(*numbers)}).status_code == 200


def test_what_sample_users_like_is_found_once(
    client: TestClient, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = client.get("/v1/users").json()
    monkeypatch.setattr(registry.get().model.catalog_view, "typical", None)
    assert client.get("/v1/users").json() == users


def test_starting_points_are_histories_to_begin_with(client: TestClient) -> None:
    points = client.get("/v1/starting-points").json()["starting_points"]
    assert points
    for point in points:
        ids = [item["item_id"] for item in point["items"]]
        assert len(ids) == 4
        assert client.post(RECOMMEND, json={"history": ids}).status_code == 200


def test_items_are_paged_searched_and_fetched_by_id(client: TestClient, recommender: Recommender) -> None:
    page = client.get("/v1/items?page=3&page_size=20").json()
    assert [page["total"], page["page"], page["page_size"]] == [N_ITEMS, 3, 20]
    assert [item["item_id"] for item in page["items"]] == items(*range(40, 48))
    result = client.get("/v1/items", params={"query": "title 4"}).json()
    assert result["items"][0]["item_id"] == "item 4"
    assert result["total"] == 1 + 8
    assert client.get("/v1/items", params={"query": "tilte"}).json()["total"] == N_ITEMS
    assert client.get("/v1/items", params={"query": "zebra"}).json()["total"] == 0
    item = client.get("/v1/items/item 7").json()
    codes = recommender.table.codes_NL[7].tolist()
    named = {"item_id": "item 7", "title": "Title 7", "text": "Title 7"}
    assert item == {**named, "semantic_id": codes, "facets": [], "image": None}
    similar = client.get("/v1/items/item 7/similar?k=4").json()["items"]
    assert [neighbour["item_id"] for neighbour in similar] == [
        neighbour.item_id for neighbour in recommender.similar_items("item 7", 4)
    ]


def test_the_semantic_id_tree_reaches_every_item(client: TestClient) -> None:
    def walk(prefix: list[int]) -> list[str]:
        path = "/v1/semantic-ids" + ("/" + "-".join(map(str, prefix)) if prefix else "")
        node = client.get(path, params={"page_size": 100}).json()
        assert node["prefix"] == prefix
        for item in node["items"]:
            assert item["semantic_id"][: len(prefix)] == prefix
        assert len(node["items"]) == node["n_items"]
        sizes = [child["n_items"] for child in node["children"]]
        assert sizes == sorted(sizes, reverse=True)
        if not node["children"]:
            return [item["item_id"] for item in node["items"]]
        below = [item_id for child in node["children"] for item_id in walk([*prefix, child["code"]])]
        assert len(below) == node["n_items"] == sum(sizes)
        return below

    assert sorted(walk([])) == sorted(items(*range(N_ITEMS)))


BODIES = [
    (b"", 422),
    (b"{", 400),
    (b"\xff\xfe", 400),
    (b"[" * 100_000, 400),
    (b'{"history":' * 50_000, 400),
    (b'{"history": ' + b"[" * 500 + b"]" * 500 + b"}", 422),
    (b"null", 422),
    (b"[]", 422),
    (b'"x"', 422),
    (b"{}", 422),
    (b'{"history": null}', 422),
    (b'{"history": [], "histories": []}', 422),
    (b'{"history": "item 1"}', 422),
    (b'{"history": [1]}', 422),
    (b'{"history": [NaN]}', 400),
    (b'{"history": [], "k": NaN}', 400),
    (b'{"history": [], "k": Infinity}', 400),
    (b'{"history": [], "k": 1e400}', 422),
    (b'{"history": [], "k": 0}', 422),
    (b'{"history": [], "k": 101}', 422),
    (b'{"history": [], "k": ' + b"9" * 4000 + b"}", 422),
    (b'{"history": [], "k": ' + b"9" * 100_000 + b"}", 400),
    (b'{"history": [], "k": "10"}', 422),
    (b'{"history": [], "k": true}', 422),
    (b'{"history": [], "max_per": {"title": 0}}', 422),
    (b'{"history": [], "unknown": "ignore"}', 422),
    (b'{"history": [], "explain": 1}', 422),
    (b'{"history": [], "colour": 1}', 422),
    (b'{"history": [], "' + b"c" * 900_000 + b'": 1}', 422),
    (b'{"history": ["\\ud800"]}', 422),
    (b'{"history": ["\\u0000"]}', 422),
    (b'{"history": ["' + b"x" * 1_000_000 + b'"]}', 422),
    (b'{"history": ["../../etc/passwd"]}', 422),
    (b'{"history": ["item 1", "item 99"]}', 422),
    (b'{"history": [], "allow": ["item 99"]}', 422),
    (b'{"history": [], "block": [[]]}', 422),
    (b'{"history": [], "model": "\\ud800"}', 422),
    (b'{"history": [], "model": "other"}', 404),
]


@pytest.mark.parametrize(("body", "status"), BODIES, ids=lambda value: str(value)[:40])
def test_invalid_bodies_get_an_error_message(client: TestClient, body: bytes, status: int) -> None:
    response = client.post(RECOMMEND, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    assert_refused(response, status, response.json()["error"]["code"])


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/items/nope", 404, "unknown_item"),
        ("/v1/items/nope/similar", 404, "unknown_item"),
        ("/v1/items/" + "x" * 5000, 422, "invalid_request"),
        ("/v1/items/..%2f..%2fetc%2fpasswd", 404, "unknown_item"),
        ("/v1/items/%00%ff", 404, "unknown_item"),
        ("/v1/items/item%201/similar?k=0", 422, "invalid_request"),
        ("/v1/items/item%201/similar?k=101", 422, "invalid_request"),
        ("/v1/items?page=0", 422, "invalid_request"),
        ("/v1/items?page=nan", 422, "invalid_request"),
        ("/v1/items?page_size=101", 422, "invalid_request"),
        ("/v1/items?page=" + "9" * 5000, 422, "invalid_request"),
        ("/v1/items?query=" + "x" * 201, 422, "invalid_request"),
        ("/v1/items?model=other", 404, "unknown_model"),
        ("/v1/semantic-ids/8", 404, "unknown_prefix"),
        ("/v1/semantic-ids/999999999", 404, "unknown_prefix"),
        ("/v1/semantic-ids/0-0-0-0-0-0", 404, "unknown_prefix"),
        ("/v1/semantic-ids/-1", 422, "invalid_request"),
        ("/v1/semantic-ids/1-", 422, "invalid_request"),
        ("/v1/semantic-ids/1%0a", 422, "invalid_request"),
        ("/v1/semantic-ids/..%2f..", 404, "not_found"),
        ("/v1/semantic-ids/" + "9" * 5000, 422, "invalid_request"),
        ("/v1/recommendations", 405, "method_not_allowed"),
        ("/v1/nothing", 404, "not_found"),
        ("/docs/nothing", 404, "not_found"),
        ("/static/..%2fapp.py", 404, "not_found"),
        ("/static/../../app.py", 404, "not_found"),
    ],
)
def test_invalid_paths_get_an_error_message(client: TestClient, path: str, status: int, code: str) -> None:
    assert_refused(client.get(path), status, code)


def test_requests_above_the_size_limits_are_refused(service: Service) -> None:
    small = service(max_body=200, max_histories=2, max_history=3)
    assert_refused(small.post(RECOMMEND, content=b"x" * 201), 413, "too_large", "200 bytes")
    assert_refused(small.post(RECOMMEND, content=iter([b"x" * 150, b"x" * 150])), 413, "too_large")
    assert_refused(
        small.post(RECOMMEND, json={"histories": [[], [], []]}), 422, "too_many_histories", "2 are"
    )
    assert_refused(small.post(RECOMMEND, json={"history": items(1, 1, 1, 1)}), 422, "long_history", "3 are")
    assert small.post(RECOMMEND, json={"histories": [items(1, 1, 1), []]}).status_code == 200


def test_every_response_has_a_request_id_and_security_headers(client: TestClient) -> None:
    for response in (client.get("/healthz"), client.get("/nope"), client.post(RECOMMEND, content=b"{")):
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert len(response.headers["X-Request-ID"]) == 16
    assert client.get("/healthz", headers={"X-Request-ID": "mine-1"}).headers["X-Request-ID"] == "mine-1"
    forged = client.get("/healthz", headers={"X-Request-ID": 'a" b'}).headers["X-Request-ID"]
    assert len(forged) == 16


def test_tokens_protect_the_api_and_metrics_but_not_health_checks(service: Service) -> None:
    client = service(tokens=("one", "two"))
    for path in ("/v1/models", "/metrics"):
        for headers in ({}, {"Authorization": "Bearer three"}, {"Authorization": "Basic one"}):
            response = client.get(path, headers=headers)
            assert_refused(response, 401, "unauthorized", "Bearer")
            assert response.headers["WWW-Authenticate"] == "Bearer"
        for token in ("one", "two"):
            assert client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert client.get("/v1/models", headers={"Authorization": b"Bearer \xff\xe4"}).status_code == 401
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_a_rate_limited_client_gets_retry_after(service: Service) -> None:
    client = service(rate=0.01, burst=2, tokens=("one", "two"))
    one, two = ({"Authorization": f"Bearer {token}"} for token in ("one", "two"))
    statuses = [client.get("/v1/models", headers=one).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    response = client.get("/v1/models", headers=one)
    assert_refused(response, 429, "rate_limited")
    assert 1 <= int(response.headers["Retry-After"]) <= 100
    assert client.get("/v1/models", headers=two).status_code == 200
    assert [client.get("/v1/models").status_code for _ in range(3)] == [401, 401, 429]
    assert client.get("/healthz").status_code == 200


def test_other_origins_need_to_be_allowed(service: Service) -> None:
    origin = {"Origin": "https://shop.example"}
    preflight = origin | {"Access-Control-Request-Method": "POST"}
    closed = service()
    assert "Access-Control-Allow-Origin" not in closed.get("/v1/models", headers=origin).headers
    assert_refused(closed.options(RECOMMEND, headers=preflight), 405, "method_not_allowed")
    opened = service(allow_origins=("https://shop.example",), tokens=("one",))
    assert opened.options(RECOMMEND, headers=preflight).status_code == 200
    allowed = opened.get("/v1/models", headers=origin | {"Authorization": "Bearer one"})
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    other = opened.get("/v1/models", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers


def test_a_slow_model_refuses_a_full_queue_and_times_out(
    service: Service, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, impatient = service(), service(timeout=0.05)
    batcher = registry.get("bare").batcher
    release, started = threading.Event(), threading.Event()
    process = batcher._process

    def slow(*arguments: Any) -> Any:
        started.set()
        assert release.wait(60)
        return process(*arguments)

    monkeypatch.setattr(batcher, "_process", slow)
    request = {"history": [], "model": "bare"}
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(client.post(RECOMMEND, json=request).status_code)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    threads[0].start()
    assert started.wait(60)
    assert_refused(impatient.post(RECOMMEND, json=request), 504, "timeout", "0.05 s")
    for thread in threads[1:]:
        thread.start()
    while batcher.queue_length < 4:  # without the one whose client has its answer
        assert not statuses
    response = client.post(RECOMMEND, json=request)
    assert_refused(response, 429, "busy")
    assert int(response.headers["Retry-After"]) >= 1
    release.set()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 5


def test_work_is_bounded_before_it_begins(service: Service) -> None:
    client = service(max_results=64)
    request: dict[str, Any] = {"histories": [[]] * 8, "k": 8}
    assert client.post(RECOMMEND, json=request).status_code == 200
    for larger, size in (({"k": 9}, 72), ({"histories": [[]] * 9}, 72), ({"explain": True}, 128)):
        refused = client.post(RECOMMEND, json=request | larger)
        assert_refused(refused, 422, "too_many_results", f"is {size}, but 64 are allowed")


def test_a_local_service_answers_to_its_own_names_only(service: Service) -> None:
    """Else a web page could give its name the address of this machine, and read what the service says."""
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:80", "[::1]:8000", "localhost."):
        assert service().get("/v1/models", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "localhost.evil.example:8000", "127.0.0.1.evil.example", "[::2]", "8.8.8.8"):
        for path in ("/v1/models", "/", "/healthz", "/admin/reload"):
            assert_refused(service().get(path, headers={"Host": host}), 421, "wrong_host", "--allow-host")
    assert (
        service(allow_hosts=("shop.example",)).get("/", headers={"Host": "shop.example"}).status_code == 200
    )
    assert service(allow_hosts=("shop.example",)).get("/").status_code == 421
    assert service(host="0.0.0.0").get("/", headers={"Host": "evil.example"}).status_code == 200


def test_a_server_error_is_a_message_and_its_traceback_is_logged(
    client: TestClient,
    registry: ModelRegistry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(registry.get().model.catalog_view, "items", broken)
    monkeypatch.setattr(registry.get().batcher, "_process", broken)
    for request in (("GET", "/v1/items"), ("POST", RECOMMEND)):
        response = client.request(*request, json={"history": []})
        assert_refused(response, 500, "internal")
        assert "secret" not in response.text
        record = next(record for record in caplog.records if record.exc_info)
        line = json.loads(JsonFormatter().format(record))
        assert "KeyError" in line["traceback"]
        assert line["request_id"] == response.headers["X-Request-ID"]
        caplog.clear()


def test_each_request_is_logged_as_one_json_line(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, LOG.name):
        response = client.post(RECOMMEND, json={"histories": [items(1), []]})
    (line,) = [
        json.loads(JsonFormatter().format(record)) for record in caplog.records if record.name == LOG.name
    ]
    assert line["message"] == "request"
    assert line["request_id"] == response.headers["X-Request-ID"]
    assert (line["method"], line["path"], line["status"]) == ("POST", RECOMMEND, 200)
    assert (line["model"], line["histories"]) == ("tiny", 2)
    assert line["ms"] > 0
    assert "item 1" not in json.dumps(line)


def test_metrics_are_labelled_by_route_and_not_by_path(service: Service) -> None:
    client = service()
    for path in ("/v1/items/item 1", "/v1/items/item 2", "/v1/items/nope", "/nope"):
        client.get(path)
    text = client.get("/metrics").text
    route = 'rqrec_requests_total{method="GET",path="/v1/items/{item_id:path}",status="%d"}'
    assert f"{route % 200} 2.0" in text
    assert f"{route % 404} 1.0" in text
    assert "/nope" not in text
    assert "rqrec_request_seconds_bucket" in text


def test_reloading_needs_the_admin_token(service: Service, registry: ModelRegistry) -> None:
    assert_refused(service().post("/admin/reload"), 403, "admin_off", "SIGHUP")
    client = service(admin_token="boss", tokens=("one",))
    assert_refused(client.post("/admin/reload"), 401, "unauthorized")
    assert_refused(client.post("/admin/reload", headers={"Authorization": "Bearer one"}), 401, "unauthorized")
    before = registry.get().model
    response = client.post("/admin/reload", headers={"Authorization": "Bearer boss"})
    assert [model["name"] for model in response.json()["models"]] == ["tiny", "bare"]
    assert registry.get().model is not before


def test_page_files_have_media_types_and_are_revalidated_by_etag(service: Service, tmp_path: Path) -> None:
    (tmp_path / "fonts").mkdir()
    contents = {"index.html": "<p>", "app.js": "1", "fonts/a.woff2": "f", "odd.xyz": "?"}
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    client = service(WebPage(tmp_path))
    types = (
        "text/html; charset=utf-8",
        "text/javascript; charset=utf-8",
        "font/woff2",
        "application/octet-stream",
    )
    for (name, text), media_type in zip(contents.items(), types, strict=True):
        response = client.get("/" if name == "index.html" else f"/static/{name}")
        assert (response.text, response.headers["Content-Type"]) == (text, media_type)
        assert response.headers["Cache-Control"] == "no-cache"
        again = client.get(f"/static/{name}", headers={"If-None-Match": response.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert client.head("/").status_code == 200
    bare = service(WebPage(tmp_path / "nowhere"))
    assert_refused(bare.get("/"), 404, "not_found")
    assert bare.get("/v1/models").status_code == 200


def test_the_docs_describe_every_route_and_load_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    text = html.unescape(page.text)
    schema = client.get("/openapi.json").json()
    for path, methods in schema["paths"].items():
        assert f"<code>{path}</code>" in text
        for operation in methods.values():
            assert operation["description"].split("`")[0] in text
    assert f"curl -s -X POST {LOCAL}/v1/recommendations" in text
    for name in re.findall(r'href="#([^"]+)"', page.text):
        assert f'id="{name}"' in page.text
    loaded = re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="([^"]+)"', page.text)
    assert loaded == ["docs/style.css", "static/icon.svg"]
    assert "<script" not in page.text
    assert " style=" not in page.text  # which the policy does not allow
    for one in loaded:
        assert client.get(f"/{one}").status_code == 200


def test_the_examples_of_the_docs_ask_the_address_that_the_docs_were_asked_at(service: Service) -> None:
    client = service(allow_hosts=("shop.example",))
    for host in ("shop.example:9000", "shop.example"):
        text = html.unescape(client.get("/docs", headers={"Host": host}).text)
        assert f"curl -s -X POST http://{host}/v1/recommendations" in text
        assert text.count("http://") == text.count(f"http://{host}/")
    assert_refused(client.get("/docs", headers={"Host": "evil.example"}), 421, "wrong_host")
    page = client.get("/docs", headers={"Host": "shop.example:<b>$(id)"}).text
    assert "<b>" not in page
    assert "'http://shop.example:<b>$(id)/" in html.unescape(page)  # quoted for the shell


def test_the_openapi_examples_are_valid_requests(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) >= {RECOMMEND, "/v1/items/{item_id}", "/v1/semantic-ids/{prefix}", "/readyz"}
    examples = schema["components"]["schemas"]["RecommendationRequest"]["examples"]
    for example in examples:
        assert client.post(RECOMMEND, json=example | {"unknown": "skip"}).status_code == 200


def test_models_are_named_explicitly_or_after_their_folder(tmp_path: Path) -> None:
    assert parse_sources(["out/a", "b=out/c"]) == {"a": Path("out/a"), "b": Path("out/c")}
    odd = tmp_path / "x=y"
    odd.mkdir()
    assert parse_sources([str(odd)]) == {"x=y": odd}
    with pytest.raises(ValueError, match=r"Two models are named 'a'.*other=there/a"):
        parse_sources(["out/a", "there/a"])


@pytest.fixture(scope="module")
def contextual(
    tiny_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestClient, Recommender]]:
    """A service of a model that uses timestamps and users (with random weights), and its recommender."""
    torch.manual_seed(0)
    tiny = read_retrieval(tiny_run)
    config = HierarchicalConfig(tiny.table.level_sizes, 8, 16, 16, 2, 1, user_buckets=50, time_gaps=8)
    folder = tmp_path_factory.mktemp("contextual") / "retrieval"
    with create(folder, "retrieval", settings={}, inputs={}) as target:
        write_retrieval(target, RetrievalArtifact(build_model(config).eval(), tiny.table, tiny.catalog))
    registry = ModelRegistry({"contextual": folder}, ServiceConfig(max_wait_ms=1.0), Metrics())
    app = create_app(registry, ServiceConfig(), Metrics())
    yield TestClient(app, LOCAL, raise_server_exceptions=False), Recommender.load(folder)
    registry.close()


def test_timestamps_and_users_reach_a_model_that_uses_them(
    contextual: tuple[TestClient, Recommender],
) -> None:
    client, recommender = contextual
    one = {"history": items(8, 9), "timestamps": [10**9, 10**9 + 60], "user": "u1", "k": 3, "explain": True}
    response = client.post(RECOMMEND, json=one)
    assert response.status_code == 200, response.text
    expected = recommender.recommend([items(8, 9)], k=3, timestamps=[[10**9, 10**9 + 60]], users=["u1"])
    scores = [item["score"] for item in response.json()["recommendations"][0]["items"]]
    assert scores == pytest.approx([item.score for item in expected[0]], abs=1e-5)
    for times in (
        ["2001-09-09T01:46:40Z", "2001-09-09 03:47:40+02:00"],
        [1_000_000_000_000, 1_000_000_060_999],
        [1e9, "1000000060.5"],
    ):
        again = client.post(RECOMMEND, json={**one, "timestamps": times})
        assert again.json() == response.json(), again.text
    several = {
        "histories": [items(8, 9), items(1)],
        "timestamps": [[10**9, 10**9 + 10**8], [5]],
        "users": ["u2", None],
        "k": 3,
    }
    others = client.post(RECOMMEND, json=several).json()["recommendations"]
    assert [item["score"] for item in others[0]["items"]] != pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({}, "needs timestamps: send the time of each item"),
        ({"timestamps": [1]}, "shape"),
        ({"timestamps": [[1, 2]]}, "shape"),
        ({"timestamps": [1, -2]}, "timestamps: '-2' is not a valid timestamp"),
        ({"timestamps": ["2023-11-14", "soon"]}, "'soon' is not a valid timestamp"),
        (
            {"timestamps": [1700000000, 1700000000000]},
            "mixes seconds (number 0: '1700000000') and milliseconds",
        ),
        ({"timestamps": [2, 1]}, "'1' comes after '2'. The times of a history must not go back"),
        ({"timestamps": [1, 2], "users": ["u"]}, "users requires histories"),
    ],
)
def test_timestamps_and_users_of_the_wrong_shape_are_refused(
    contextual: tuple[TestClient, Recommender], more: dict[str, Any], word: str
) -> None:
    response = contextual[0].post(RECOMMEND, json={"history": items(8, 9), **more})
    assert response.status_code == 422
    assert word in response.json()["error"]["message"]


def test_other_models_ignore_timestamps_and_users(client: TestClient) -> None:
    plain = client.post(RECOMMEND, json={"history": items(8, 9)}).json()
    more = client.post(RECOMMEND, json={"history": items(8, 9), "timestamps": [1, 2], "user": "u"}).json()
    assert [note.split()[0] for note in more.pop("notes")] == ["`timestamps`", "`user`"]
    assert plain.pop("notes") == []
    assert more == plain


def test_no_more_requests_are_read_than_there_is_room_for(
    service: Service, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "n_models", lambda: 1)
    batcher, release = registry.get("bare").batcher, threading.Event()
    process = batcher._process

    def slow(*arguments: Any) -> Any:
        assert release.wait(60)
        return process(*arguments)

    monkeypatch.setattr(batcher, "_process", slow)
    client, unreadable = service(max_queue=1, max_batch=1), b"not JSON"
    statuses: list[int] = []

    def ask() -> None:
        while (status := client.post(RECOMMEND, json={"history": [], "model": "bare"}).status_code) == 429:
            pass  # the one below was there
        statuses.append(status)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        assert client.post(RECOMMEND, content=unreadable).status_code == 422  # there is room
        thread.start()
    while (response := client.post(RECOMMEND, content=unreadable)).status_code == 422:
        assert not statuses
    assert_refused(response, 429, "busy")
    assert int(response.headers["Retry-After"]) >= 1
    assert client.get("/v1/models").status_code == 200
    release.set()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 2
    assert client.post(RECOMMEND, content=unreadable).status_code == 422


def test_a_long_body_is_not_read_while_the_queue_is_full(
    service: Service, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds: list[float | None] = [2.5]
    monkeypatch.setattr(registry, "busy", lambda: seconds[0])
    monkeypatch.setattr(middleware, "REFUSED_AFTER", 0.0)
    client = service()
    long, short = b"not JSON" * 10_000, b"not JSON"
    response = client.post(RECOMMEND, content=long)
    assert_refused(response, 429, "busy")
    assert response.headers["Retry-After"] == "3"
    assert client.post(RECOMMEND, content=short).status_code == 422
    seconds[0] = None
    assert client.post(RECOMMEND, content=long).status_code == 422


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            b'{"history": ["item 1"], "k": 3, "k": 5}',
            "'k' occurs more than once in an object at character 32",
        ),
        (b'{"history": ["item 1"], "rules": {"where": "a", "where": "b"}}', "'where' occurs more than once"),
        (b'{"history": [', "Expecting value at character 13"),
        (b"[" * 100_000, "not valid JSON: too many brackets"),
        (b'{"history": ["\xff"]}', "not UTF-8 at character 14"),
        (b'{"history": [], "boost": {"a": NaN}}', "NaN is not a number of JSON at character 31"),
        (b'{"history": [], "k": -Infinity}', "-Infinity is not a number of JSON at character 21"),
        (
            b'{"history": [], "k": ' + b"9" * 5000 + b"}",
            "a whole number of more than 4300 digits at character 21",
        ),
    ],
)
def test_a_body_that_is_not_strict_json_is_refused_with_the_place(
    client: TestClient, body: bytes, said: str
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/recommendations", content=body, headers=headers)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize("media", ["application/x-www-form-urlencoded", "text/plain"])
def test_a_body_of_another_media_type_says_which_one_is_read(client: TestClient, media: str) -> None:
    response = client.post(RECOMMEND, content=b'{"history": []}', headers={"Content-Type": media})
    assert_refused(response, 422, "invalid_request", "Content-Type: application/json", media)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("k", "3", 'k: Input should be a valid integer, not "3".'),
        ("k", True, "not true"),
        ("k", 1000, "k: Input should be less than or equal to 100, not 1000."),
        ("model", 5, "model: Input should be a valid string, not 5."),
        ("unknown", "x" * 500, f'not "{"x" * 99}...'),
        ("times", [], "times: Extra inputs are not permitted."),
        ("k", {"a": 1}, "k: Input should be a valid integer."),
    ],
)
def test_a_value_that_is_not_allowed_is_named(client: TestClient, field: str, value: Any, said: str) -> None:
    response = client.post(RECOMMEND, json={"history": [], field: value})
    assert_refused(response, 422, "invalid_request", said)


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/v1/items?pagesize=5", "has the parameters"),
        ("GET", "/v1/models?x=", "'x'"),
        (
            "POST",
            "/admin/reload?model=zz",
            "POST /admin/reload has no parameters; 'model' is none: leave it out.",
        ),
    ],
)
def test_a_parameter_that_makes_no_difference_is_refused(
    client: TestClient, method: str, path: str, said: str
) -> None:
    assert_refused(client.request(method, path), 422, "unknown_parameter", said)
    assert client.get("/?history=1&user=2").status_code == 200  # the page reads them itself


def test_what_a_model_does_not_read_is_noted(client: TestClient) -> None:
    one = client.post(RECOMMEND, json={"history": [], "user": "u"}).json()
    assert one["notes"] == ["`user` makes no difference to this model, which was trained without it."]
    several = {"histories": [[], []], "users": ["u", None], "timestamps": [[], []]}
    assert [note.split()[0] for note in client.post(RECOMMEND, json=several).json()["notes"]] == [
        "`timestamps`",
        "`users`",
    ]
    assert client.post(RECOMMEND, json={"history": []}).json()["notes"] == []
