"""A joined model through each door: Python, the command line, HTTP and batches."""

import json
import shutil
import threading
from collections.abc import Iterator
from math import exp, inf, isinf
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from starlette.testclient import TestClient
from typer.testing import CliRunner

from rqrec import Recommender, Rules
from rqrec.cli import app
from rqrec.cli.command import emit
from rqrec.core.artifact import create, read_manifest
from rqrec.core.pausing import pausing
from rqrec.data.sequences import Sequences
from rqrec.data.splits import get_protocol
from rqrec.models.architectures import build_model
from rqrec.models.hierarchical import HierarchicalConfig
from rqrec.retrieval.artifact import CodesModel, read_retrieval, write_retrieval
from rqrec.retrieval.ensemble import ExpertSettings
from rqrec.serving.app import create_app
from rqrec.serving.config import ServiceConfig
from rqrec.serving.metrics import Metrics
from rqrec.serving.model_registry import ModelRegistry
from tests.serving.running import LOCAL
from tests.tiny import N_ITEMS

RECOMMEND = "/v1/recommendations"
TYPES = {"codes": "codes", "codes_2": "codes", "dense": "dense", "neighbours": "neighbours"}
SELECTIONS = {
    "codes": ["codes", "codes_2"],
    "codes_2": ["codes_2"],
    "dense": ["dense"],
    "neighbours": ["neighbours"],
    "trained": ["codes", "codes_2", "dense"],
    "all": [*TYPES],
    "dense,neighbours": ["dense", "neighbours"],
}
each_selection = pytest.mark.parametrize("words", SELECTIONS)


def items(*numbers: int) -> list[str]:
    return [f"item {number}" for number in numbers]


HISTORIES = [items(8, 9), [], items(40, 41, 42)]


@pytest.fixture(scope="module")
def recommender(tiny_joined: Path) -> Recommender:
    return Recommender.load(tiny_joined)


@pytest.fixture(scope="module")
def registry(tiny_joined: Path, tiny_run: Path) -> Iterator[ModelRegistry]:
    sources = {"joined": tiny_joined, "single": tiny_run}
    registry = ModelRegistry(sources, ServiceConfig(max_wait_ms=1.0), Metrics())
    yield registry
    registry.close()


@pytest.fixture(scope="module")
def client(registry: ModelRegistry) -> TestClient:
    app = create_app(registry, ServiceConfig(timeout=60.0), Metrics())
    return TestClient(app, LOCAL, raise_server_exceptions=False)


def rqrec(*arguments: object) -> str:
    """The output of a command that must succeed."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def asked(client: TestClient, **body: Any) -> list[dict[str, Any]]:
    """The answer for each history."""
    response = client.post(RECOMMEND, json=body)
    assert response.status_code == 200, response.text
    return response.json()["recommendations"]


@each_selection
def test_python_http_the_command_line_and_batches_give_the_same_items(
    words: str, recommender: Recommender, client: TestClient, tiny_joined: Path, tmp_path: Path
) -> None:
    expected = recommender.recommend(HISTORIES, k=4, experts=words.split(","))
    for recommended in expected:
        for item in recommended:
            assert list(item.experts) == SELECTIONS[words]
    answers = [
        (item["item_id"], item["score"])
        for answer in asked(client, histories=HISTORIES, k=4, experts=words.split(","))
        for item in answer["items"]
    ]
    options = ("--artifact", tiny_joined, "--k", 4, "--experts", words, "--json")
    printed = [
        (item["item_id"], item["score"])
        for history in HISTORIES
        for item in json.loads(rqrec("recommend", "--history", ",".join(history), *options))[
            "recommendations"
        ]
    ]
    source = tmp_path / "users.parquet"
    pl.DataFrame({"user_id": [1, 2, 3], "history": HISTORIES}).write_parquet(source)
    rqrec("batch-recommend", "--input", source, "--out", tmp_path / "out", "--processes", 1, *options)
    (part,) = (tmp_path / "out").glob("part-*.parquet")
    table = pl.read_parquet(part)
    written = list(zip(table["item_ids"].explode(), table["scores"].explode(), strict=True))
    for found in (answers, printed, [row for row in written if row[0] is not None]):
        assert [item_id for item_id, _ in found] == [item.item_id for row in expected for item in row]
        scores = [item.score for row in expected for item in row]
        assert [score for _, score in found] == pytest.approx(scores, abs=1e-4)


@each_selection
def test_constraints_hold_for_each_selection(words: str, recommender: Recommender) -> None:
    experts = words.split(",")
    allow, block = items(*range(6, 20)), items(11)
    (found,) = recommender.recommend(
        [["gone", *items(8, 9)]], k=20, allow=allow, block=[*block, "lost"], unknown="skip", experts=experts
    )
    assert found.skipped == ("gone", "lost")
    assert found.n_allowed == 14 - 1 - 2
    got = [item.item_id for item in found]
    allowed = set(allow) - set(block) - set(items(8, 9))
    assert set(got) == allowed if words != "neighbours" else set() < set(got) < allowed
    scores = [item.score for item in found]
    assert scores == sorted(scores, reverse=True)
    assert sum(map(exp, scores)) <= 1 + 1e-5
    (again,) = recommender.recommend([items(8, 9)], k=20, exclude_seen=False, experts=experts)
    assert again.n_allowed == N_ITEMS
    seen_can_return = recommender.recommend([items(8, 9)], k=2, allow=items(8, 9), exclude_seen=False)
    assert {item.item_id for item in seen_can_return[0]} == set(items(8, 9))
    (spread,) = recommender.recommend(
        [items(8, 9)], k=4, rules=Rules(max_per={"first_code": 1}), experts=experts
    )
    first_codes = [item.semantic_id[0] for item in spread]
    assert len(set(first_codes)) == len(first_codes) >= 1
    (best, *_) = recommender.recommend([items(8, 9)], k=1, experts=experts)[0]
    assert spread[0].item_id == best.item_id


def test_each_experts_own_log_probability_is_that_of_asking_it_alone(recommender: Recommender) -> None:
    (together,) = recommender.recommend([items(8, 9)], k=N_ITEMS)
    assert len(together) == N_ITEMS - 2
    for name in TYPES:
        alone = {
            item.item_id: item.experts[name]
            for item in recommender.recommend([items(8, 9)], k=N_ITEMS, experts=[name])[0]
        }
        if name == "neighbours":
            assert 0 < len(alone) < N_ITEMS - 2
        for item in together:
            assert item.experts[name] == pytest.approx(alone.get(item.item_id, -inf), abs=1e-4)


def test_without_a_history_neighbours_alone_recommend_popular_items(recommender: Recommender) -> None:
    popular, others = recommender.recommend([[], []], k=3, experts=["neighbours"])
    assert [item.item_id for item in popular] == [item.item_id for item in others]
    assert len(popular) == 3
    (together,) = recommender.recommend([[]], k=3)
    assert len(together) == 3
    assert all(isinf(item.experts["neighbours"]) for item in together)


@pytest.mark.parametrize(
    "model", ["joined", "single"]
)  # the neighbours count items, or the dataset beside the model
def test_popularity_can_be_asked_to_compare(model: str, client: TestClient, tiny_joined: Path) -> None:
    items_N = get_protocol("leave_one_out")(Sequences.read(tiny_joined / "dataset")).train.items
    counts_N = np.bincount(items_N, minlength=N_ITEMS)
    popular = items(*np.argsort(-counts_N, kind="stable"))
    history, blocked = [popular[1], popular[0], popular[1]], popular[3]
    left = [item for item in popular if item not in (*history, blocked)]
    body = {"k": N_ITEMS, "model": model, "experts": ["popularity"]}
    found, first = asked(client, histories=[history, []], block=[blocked], **body)
    assert [item["item_id"] for item in found["items"]] == left
    assert sum(exp(item["score"]) for item in found["items"]) == pytest.approx(1)
    assert [item["item_id"] for item in first["items"]] == [item for item in popular if item != blocked]
    (repeated,) = asked(client, history=history, exclude_seen=False, explain=True, **body | {"k": 1})
    assert repeated["items"][0]["item_id"] == popular[0]
    assert repeated["items"][0]["experts"].keys() == {"popularity"}


def test_popularity_is_asked_alone_and_only_where_it_is_known(
    client: TestClient, tiny_run: Path, tmp_path: Path
) -> None:
    refused = client.post(RECOMMEND, json={"history": [], "experts": ["codes", "popularity"]})
    assert refused.status_code == 422
    assert "popularity is a baseline, and is asked alone" in refused.json()["error"]["message"]
    shutil.copytree(tiny_run / "retrieval", tmp_path / "retrieval")
    without_dataset = Recommender.load(tmp_path)
    assert without_dataset.baselines == []
    with pytest.raises(ValueError, match="its dataset is not near it"):
        without_dataset.recommend([[]], experts=["popularity"])


def test_unknown_and_missing_experts_are_refused(
    recommender: Recommender, client: TestClient, tiny_joined: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match="no expert 'llm'; this model has codes, codes_2, dense, neighbours"
    ) as error:
        recommender.recommend([[]], experts=["codes", "llm"])
    refused = client.post(RECOMMEND, json={"history": [], "experts": ["codes", "llm"]})
    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "unknown_expert"
    assert refused.json()["error"]["message"] == str(error.value)
    only_codes = client.post(RECOMMEND, json={"history": [], "model": "single", "experts": ["dense"]})
    assert "no expert 'dense'; this model has codes, all" in only_codes.json()["error"]["message"]
    for experts in ([], "codes", [1], [None], ["x" * 101], ["codes"] * 101):
        body = {"history": [], "experts": experts}
        assert client.post(RECOMMEND, json=body).json()["error"]["code"] == "invalid_request", experts
    source, out = tmp_path / "users.csv", tmp_path / "out"
    source.write_text("user_id,history\n1,item 1\n")
    for command in (
        ("recommend", "--history", "item 1"),
        ("batch-recommend", "--input", source, "--out", out),
    ):
        arguments = [*map(str, command), "--artifact", str(tiny_joined), "--experts", "llm"]
        done = CliRunner().invoke(app, arguments)
        assert (done.exit_code, done.stdout) == (1, "")
        assert str(error.value) in done.stderr
    assert not out.exists()


def test_a_batch_resumes_only_with_the_same_experts(tiny_joined: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "users.csv", tmp_path / "out"
    source.write_text("user_id,history\n1,item 1\n2,item 2\n")
    batch = ["batch-recommend", "--artifact", tiny_joined, "--input", source, "--out", out]
    batch += ["--processes", 1]
    first = rqrec(*batch, "--experts", "codes,dense", "--json")
    assert rqrec(*batch, "--experts", "codes", "--experts", "dense", "--json") == first
    done = CliRunner().invoke(app, [*map(str, batch), "--experts", "dense"])
    assert done.exit_code == 1
    assert "experts (was ['codes', 'dense'], now ['dense'])" in done.stderr


def test_requests_share_a_batch_only_if_they_ask_the_same_experts(
    client: TestClient, registry: ModelRegistry, recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = registry.get("joined").batcher
    process, begun, release, batches = batcher._process, threading.Event(), threading.Event(), []

    def slow(options: Any, requests: Any) -> Any:
        begun.set()
        assert release.wait(60)
        batches.append((options.experts, len(requests)))
        return process(options, requests)

    monkeypatch.setattr(batcher, "_process", slow)
    words = [["dense"], ["neighbours"], None, ["all"], ["trained", "neighbours"], ["dense"]]
    answers: dict[int, Any] = {}

    def ask(number: int) -> None:
        (answers[number],) = asked(client, history=items(8, 9), k=3, experts=words[number])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(words))]
    threads[0].start()
    assert begun.wait(60)  # the first one runs alone
    for thread in threads[1:]:
        thread.start()
    while batcher.queue_length < len(words) - 1:
        assert not answers
    release.set()
    for thread in threads:
        thread.join()
    assert batches[0][1] == 1
    assert sorted(batches[1:]) == sorted([(("neighbours",), 1), (tuple(TYPES), 3), (("dense",), 1)])
    for number, experts in enumerate(words):
        (expected,) = recommender.recommend([items(8, 9)], k=3, experts=experts)
        found = [item["item_id"] for item in answers[number]["items"]]
        assert found == [item.item_id for item in expected]


def test_http_says_what_each_expert_said_only_with_explain(
    client: TestClient, recommender: Recommender
) -> None:
    (plain,) = asked(client, history=items(8, 9), k=N_ITEMS)
    (answer,) = asked(client, history=items(8, 9), k=N_ITEMS, explain=True)
    (expected,) = recommender.recommend([items(8, 9)], k=N_ITEMS)
    (explained,) = recommender.explain_all([items(8, 9)], [[item.item_id for item in expected]])
    impossible = 0
    for short, found, item, why in zip(plain["items"], answer["items"], expected, explained, strict=True):
        assert not short.keys() & {"experts", "path", "because"}
        assert found["experts"].keys() == TYPES.keys()
        for name, log_p in item.experts.items():
            if isinf(log_p):
                assert found["experts"][name] is None
                impossible += 1
            else:
                assert found["experts"][name] == pytest.approx(log_p, abs=1e-4)
        because = [(reason["item_id"], reason["title"]) for reason in found["because"]]
        assert because == [
            (reason.item_id, reason.item_id.replace("item", "Title")) for reason in why.because
        ]
        assert [reason["share"] for reason in found["because"]] == pytest.approx(
            [reason.share for reason in why.because]
        )
    assert 0 < impossible < N_ITEMS
    (single,) = asked(client, history=items(8, 9), k=1, explain=True, model="single")
    assert single["items"][0]["experts"] == {"codes": pytest.approx(single["items"][0]["score"])}
    assert single["items"][0]["because"] == []


def test_models_list_their_experts(client: TestClient, tiny_joined: Path) -> None:
    joined, single = client.get("/v1/models").json()["models"]
    weights = read_manifest(tiny_joined / "retrieval").metrics["experts"]
    assert joined["experts"] == [
        {"name": name, "type": expert_type, **weights[name], "index_recall": None}
        for name, expert_type in TYPES.items()
    ]
    assert [expert["name"] for expert in joined["experts"] if expert["share"] is not None] == ["neighbours"]
    assert joined["parameters"] == read_manifest(tiny_joined / "retrieval").metrics["parameters"]
    alone = {"name": "codes", "type": "codes", "power": 1.0, "share": None, "index_recall": None}
    assert single["experts"] == [alone]
    assert joined["baselines"] == single["baselines"] == ["popularity"]


def test_requests_between_the_steps_of_another_change_nothing(recommender: Recommender) -> None:
    """A service answers small requests wherever a large one pauses, in the same thread."""

    def answer(history: list[str], k: int) -> Any:
        (found,) = recommender.recommend([history], k, allow=items(*range(2, 45)))
        return found, recommender.explain_all([history], [[item.item_id for item in found]])

    expected = [answer(history, 5) for history in HISTORIES]
    pauses = 0

    def others() -> None:
        nonlocal pauses
        with pausing(lambda: None):
            assert answer(HISTORIES[pauses % 3], 5) == expected[pauses % 3]
        pauses += 1

    large = answer(items(1, 2, 3), 20)
    with pausing(others):
        assert answer(items(1, 2, 3), 20) == large
    levels = len(recommender.table.level_sizes)
    assert pauses > 4 * levels  # search, scores and explanations of the codes alone


def test_the_neighbours_name_the_items_of_the_history_that_propose_an_item(recommender: Recommender) -> None:
    index, ids = recommender.artifact.others["neighbours"], recommender.catalog.id_map
    history = items(3, 8, 9, 8)
    (found,) = recommender.recommend([history], k=20, experts=["neighbours"])
    for item in found:
        (number,) = ids.indices([item.item_id]).tolist()
        parts: dict[str, float] = {}
        for age, item_id in enumerate(reversed(history)):
            row = int(ids.indices([item_id])[0])
            similarity = index.similarity_NM[row][index.neighbours_NM[row] == number].sum()
            parts[item_id] = parts.get(item_id, 0.0) + float(similarity) * index.settings.decay**age
        total = sum(parts.values())
        because = recommender.explain(history, item.item_id).because
        assert {reason.item_id: pytest.approx(reason.share) for reason in because} == {
            item_id: part / total for item_id, part in parts.items() if part
        }
        assert [reason.share for reason in because] == sorted((r.share for r in because), reverse=True)
    assert recommender.explain(items(8), "item 47").because == ()


def test_the_command_line_explains_in_probabilities_and_valid_json(tiny_joined: Path, tiny_run: Path) -> None:
    arguments = ("recommend", "--artifact", tiny_joined, "--history", "item 8,item 9", "--k", 40, "--explain")
    printed = rqrec(*arguments, "--json")
    assert "Infinity" not in printed
    rows = json.loads(printed)["recommendations"]
    assert None in [row["experts"]["neighbours"] for row in rows]
    text = rqrec(*arguments)
    for row in rows:
        for name, log_p in row["experts"].items():
            assert f"       {name:<10} {0 if log_p is None else exp(log_p):7.2%}\n" in text
    best = rows[0]
    shares = ", ".join(f"{reason['item_id']} ({reason['share']:.0%})" for reason in best["because"])
    assert f"       neighbour of {shares}\n" in text
    assert f"       code {best['path'][0]['code']:<5d}" in text
    plain = json.loads(rqrec(*arguments[:-1], "--json"))["recommendations"]
    assert all(not row.keys() & {"experts", "path", "because"} for row in plain)
    alone = rqrec("recommend", "--artifact", tiny_run, *arguments[3:])
    assert {line.split()[0] for line in alone.splitlines() if line.startswith("       ")} == {"code"}


def test_the_command_line_says_why_the_neighbours_give_fewer_items(tiny_joined: Path) -> None:
    arguments = ("recommend", "--artifact", tiny_joined, "--k", 40, "--experts", "neighbours")
    assert "items are shown: the neighbours do not know the others." in rqrec(
        *arguments, "--history", "item 8"
    )
    assert "items are shown" not in rqrec(*arguments, "--history", "")  # the most popular ones


def test_printed_json_has_null_where_json_has_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"nan": float("nan"), "rows": [{"low": -inf, "tuple": (inf, 1.5)}], "text": "NaN"}, True, "")
    expected = {"nan": None, "rows": [{"low": None, "tuple": [None, 1.5]}], "text": "NaN"}
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == expected


def test_times_are_needed_if_any_joined_model_needs_them(tiny_run: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tiny = read_retrieval(tiny_run)
    config = HierarchicalConfig(tiny.table.level_sizes, 8, 16, 16, 2, 1, time_gaps=8)
    others = {"codes_2": CodesModel(build_model(config).eval(), tiny.table)}
    joined = tiny._replace(
        others=others, settings={"codes": ExpertSettings(), "codes_2": ExpertSettings(0.5)}
    )
    with create(tmp_path / "retrieval", "retrieval") as target:
        write_retrieval(target, joined)
    registry = ModelRegistry({"joined": tmp_path}, ServiceConfig(max_wait_ms=1.0), Metrics())
    client = TestClient(
        create_app(registry, ServiceConfig(), Metrics()), LOCAL, raise_server_exceptions=False
    )
    refused = client.post(RECOMMEND, json={"history": items(1)})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "no_timestamps")
    (answer,) = asked(client, history=items(1), timestamps=[1_700_000_000])
    assert len(answer["items"]) == 10
    registry.close()
