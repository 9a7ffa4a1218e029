"""Items added and removed while a model is served: over HTTP, from Python and on the command line."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from rqrec import Recommender
from rqrec.cli import app
from rqrec.core.artifact import create
from rqrec.core.lock import is_lock
from rqrec.data import encoders
from rqrec.data.catalog import Catalog
from rqrec.retrieval import item_vectors
from rqrec.retrieval.artifact import read_retrieval, write_retrieval
from rqrec.serving.app import MAX_REPLACED
from rqrec.serving.rules import Rules
from tests.serving.running import running
from tests.tiny import DIM, N_ITEMS, tiny_vectors

RECOMMEND, ADMIN = "/v1/recommendations", {"Authorization": "Bearer boss"}
HISTORY = ["item 9", "item 10"]


def vector(number: int) -> list[float]:
    """Close to those of the family of item `number`."""
    return (tiny_vectors()[number] + 0.01).tolist()


@pytest.fixture
def model(tiny_joined: Path, tmp_path: Path) -> Path:
    """A copy of a joined model, whose items can be changed."""
    shutil.copytree(tiny_joined / "retrieval", tmp_path / "retrieval")
    return tmp_path / "retrieval"


@pytest.fixture
def client(model: Path) -> Iterator[httpx.Client]:
    with (
        running({"live": model}, admin_token="boss") as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        yield client


def asked(client: httpx.Client, **body: Any) -> list[str]:
    """The ids of the items that a history is answered with."""
    response = client.post(RECOMMEND, json={"history": HISTORY, "k": 20, **body})
    assert response.status_code == 200, response.text
    return [item["item_id"] for item in response.json()["recommendations"][0]["items"]]


def rqrec(*arguments: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def refused(*arguments: object) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert (done.exit_code, done.stdout) == (1, ""), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_an_added_item_is_in_the_next_answer_and_after_a_restart(client: httpx.Client, model: Path) -> None:
    before = asked(client)
    item = {"item_id": "new/1", "title": "A new film", "text": "about things", "vector": vector(8)}
    added = client.post("/v1/items", json={"items": [item]}, headers=ADMIN)
    assert (added.status_code, added.json()) == (
        200,
        {"model": "live", "version": 1, "n_items": N_ITEMS + 1, "notes": []},
    )
    after = asked(client)
    assert "new/1" in after
    assert [one for one in after if one != "new/1"] == before[: len(after) - 1]
    assert asked(client, experts=["content"]) == ["new/1"]
    assert "new/1" not in asked(client, experts=["trained"])
    assert "new/1" not in asked(client, history=[*HISTORY, "new/1"])
    (explained,) = client.post(
        RECOMMEND, json={"history": HISTORY, "allow": ["new/1"], "explain": True}
    ).json()["recommendations"]
    (shown,) = explained["items"]
    assert shown["experts"]["content"] == pytest.approx(0.0)
    assert [step["code"] for step in shown["path"]] == shown["semantic_id"]
    assert client.get("/v1/items?query=new+film").json()["items"][0]["item_id"] == "new/1"
    assert client.get("/v1/items?query=abuot+things").json()["items"][0]["item_id"] == "new/1"
    assert client.get("/v1/items/new/1").json()["text"] == "about things"
    assert len(client.get("/v1/items/new/1/similar").json()["items"]) == 10
    (described,) = client.get("/v1/models").json()["models"]
    assert (described["n_items"], described["version"]) == (N_ITEMS + 1, 1)
    assert described["experts"][-1]["type"] == "content"
    with running({"live": model}) as address, httpx.Client(base_url=address, timeout=60) as restarted:
        assert asked(restarted) == after
    (again,) = Recommender.load(model).recommend([HISTORY], k=20)
    assert [one.item_id for one in again] == after


def test_a_removed_item_vanishes_at_once_everywhere(
    client: httpx.Client, model: Path, tmp_path: Path
) -> None:
    gone = asked(client)[0]
    removed = client.delete(f"/v1/items/{gone}", headers=ADMIN)
    assert (removed.status_code, removed.json()["n_items"]) == (200, N_ITEMS - 1)
    for words in (None, ["codes"], ["codes_2"], ["dense"], ["neighbours"]):
        assert gone not in asked(client, experts=words, k=48)
    assert client.get(f"/v1/items/{gone}").json()["error"]["code"] == "removed_item"
    assert gone not in str(client.get("/v1/items", params={"query": gone}).json())
    assert client.get(f"/v1/items/{gone}/similar").status_code == 404
    page = client.get("/v1/items?page_size=100").json()
    assert (page["total"], gone in [item["item_id"] for item in page["items"]]) == (N_ITEMS - 1, False)
    title = gone.replace("item", "Title")
    found = client.get("/v1/items", params={"query": title}).json()["items"]
    assert gone not in [item["item_id"] for item in found]
    assert client.get("/v1/semantic-ids").json()["n_items"] == N_ITEMS - 1
    for number in (1, 9):
        similar = client.get(f"/v1/items/item {number}/similar?k=100").json()["items"]
        assert gone not in [item["item_id"] for item in similar]
    # It is still read in a history, and may be named in filters.
    assert asked(client, history=[gone, *HISTORY], allow=["item 11", gone]) == (
        ["item 11"] if gone != "item 11" else []
    )
    assert client.delete(f"/v1/items/{gone}", headers=ADMIN).json()["error"]["code"] == "unknown_item"
    source, out = tmp_path / "users.csv", tmp_path / "out"
    source.write_text('user_id,history\n1,"item 9,item 10"\n')
    batch = ("batch-recommend", "--artifact", model, "--input", source, "--out", out, "--processes", 1)
    rqrec(*batch, "--k", 48)
    (part,) = out.glob("part-*.parquet")
    listed = pl.read_parquet(part)["item_ids"][0].to_list()
    assert gone not in listed
    assert len(listed) >= N_ITEMS - 4
    rqrec("items", "rollback", model)
    assert "differs" not in refused(*batch, "--k", 10)
    assert client.post("/admin/reload", headers=ADMIN).status_code == 200
    assert gone in asked(client)


def test_an_item_comes_back_without_a_vector(client: httpx.Client, model: Path, tmp_path: Path) -> None:
    """Nothing is encoded, as the encoder of this model is none that can be loaded."""
    for number in (3, 4, 5):
        assert client.delete(f"/v1/items/item {number}", headers=ADMIN).status_code == 200
    body = {"items": [{"item_id": "item 3", "title": "Back"}]}
    answer = client.post("/v1/items", json=body, headers=ADMIN)
    assert (answer.status_code, answer.json().get("n_items")) == (200, N_ITEMS - 2), answer.text
    (tmp_path / "new.csv").write_text("item_id,title\nitem 4,Back\n")
    rqrec("items", "add", model, "--items", tmp_path / "new.csv")
    back = Recommender.load(model).add_items([{"item_id": "item 5", "title": "Back"}])
    assert [back.catalog.titles()[number] for number in (3, 4, 5)] == ["Back"] * 3
    assert back.available.all()


def test_an_updated_item_is_described_anew_and_keeps_its_codes(client: httpx.Client) -> None:
    before, listed = client.get("/v1/items/item 10").json(), asked(client)

    def update(*items: Any, headers: dict[str, str] = ADMIN) -> httpx.Response:
        return client.patch("/v1/items", json={"items": items}, headers=headers)

    changed = update(
        {"item_id": "item 10", "title": "Another name"}, {"item_id": "item 11", "text": "other words"}
    )
    assert (changed.status_code, changed.json()) == (
        200,
        {"model": "live", "version": 1, "n_items": N_ITEMS, "notes": []},
    )
    assert client.get("/v1/items/item 10").json() == {**before, "title": "Another name"}
    assert client.get("/v1/items/item 11").json()["text"] == "other words"
    assert client.get("/v1/items?query=anothr+name").json()["items"][0]["item_id"] == "item 10"
    assert asked(client) == listed
    for items, status, message in (
        ([{"item_id": "nobody", "title": "x"}], 404, "nobody"),
        ([{"item_id": "item 1"}, {"item_id": "item 1"}], 422, "more than once"),
        ([{"item_id": "item 1", "title": ""}], 422, "title"),
        ([{"item_id": "item 1", "title": 3}], 422, "title"),
        ([{"item_id": "item 1", "colour": "red"}], 422, "colour"),
        ([{"title": "x"}], 422, "item_id"),
        ([], 422, "items"),
    ):
        response = update(*items)
        assert (response.status_code, message in response.text) == (status, True), response.text
    assert update({"item_id": "item 1", "title": "x"}, headers={}).status_code == 401


def test_changes_need_the_admin_token_and_valid_items(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "_hub_is_reachable", lambda: False)
    good = {"item_id": "new", "title": "New", "vector": vector(0)}

    def add(*items: Any, headers: dict[str, str] = ADMIN) -> tuple[int, str, str]:
        response = client.post("/v1/items", json={"items": items}, headers=headers)
        error = response.json()["error"]
        return response.status_code, error["code"], error["message"]

    assert add(good, headers={})[:2] == (401, "unauthorized")
    assert client.delete("/v1/items/item 1").status_code == 401
    for items, message in (
        ([good, good], "occurs more than once"),
        ([{**good, "item_id": "item 1"}], "in the catalogue already"),
        ([{**good, "vector": [1.0]}], "shape [1, 1]"),
        ([{**good, "vector": [1e30] * DIM}], "has NaN, infinite values"),
        ([{**good, "title": " "}], "has no title"),
        ([good, {"item_id": "other", "title": "Other"}], "none a vector"),
        ([{"item_id": "new"}], "title"),
        ([{**good, "colour": "red"}], "colour"),
        ([], "items"),
    ):
        status, code, found = add(*items)
        assert (status, message in found) == (422, True), (message, found)
        assert found.endswith(".")
    status, code, message = add({"item_id": "new", "title": "New"})  # there is no encoder of this name
    assert (status, code) == (503, "not_changed")
    assert "'tiny' is not cached" in message
    assert client.delete("/v1/items/lost", headers=ADMIN).json()["error"]["code"] == "unknown_item"
    assert client.get("/v1/models").json()["models"][0]["version"] == 0
    assert client.request("DELETE", "/v1/items/item 1?model=other", headers=ADMIN).status_code == 404


def test_no_request_is_lost_while_items_come_and_go(client: httpx.Client) -> None:
    stop, failures, answers = threading.Event(), [], [0, 0]

    def ask() -> None:
        with httpx.Client(base_url=client.base_url, timeout=60) as own:
            while not stop.is_set():
                response = own.post(RECOMMEND, json={"history": HISTORY, "k": 20, "unknown": "skip"})
                if response.status_code != 200 or len(response.json()["recommendations"][0]["items"]) != 20:
                    failures.append(response.text)
                answers["new" in response.text] += 1

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        item = {"item_id": "new", "title": "New", "vector": vector(8)}
        assert client.post("/v1/items", json={"items": [item]}, headers=ADMIN).status_code == 200
        assert "new" in asked(client)
        assert client.delete("/v1/items/new", headers=ADMIN).status_code == 200
        assert "new" not in asked(client)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert min(answers) > 0
    assert client.get("/v1/models").json()["models"][0]["version"] == 6


def test_a_request_whose_rules_are_checked_during_a_change_is_answered(
    with_fields: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, checked = Recommender.check_rules, []

    with running({"live": with_fields}, admin_token="boss") as address:

        def check_during_a_change(self: Recommender, rules: Rules) -> None:
            checked.append(rules)
            if len(checked) == 1:
                removed = httpx.delete(f"{address}/v1/items/item%202", headers=ADMIN, timeout=60)
                assert removed.status_code == 200
            check(self, rules)

        monkeypatch.setattr(Recommender, "check_rules", check_during_a_change)
        with httpx.Client(base_url=address, timeout=60) as client:
            assert set(asked(client, where="price < 3")) == {"item 0", "item 1"}
    assert len(checked) == 2


def test_a_model_that_is_replaced_at_every_check_is_told_as_busy(
    with_fields: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running({"live": with_fields}, admin_token="boss") as address:
        checked: list[Rules] = []

        def check_during_a_change(self: Recommender, rules: Rules) -> None:
            checked.append(rules)
            item = f"{address}/v1/items/item%20{len(checked)}"
            assert httpx.delete(item, headers=ADMIN, timeout=60).status_code == 200

        monkeypatch.setattr(Recommender, "check_rules", check_during_a_change)
        body = {"history": HISTORY, "where": "price < 3"}
        answer = httpx.post(f"{address}{RECOMMEND}", json=body, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "busy")
    assert answer.headers["retry-after"] == "1"
    assert len(checked) == MAX_REPLACED


def test_an_update_that_changes_nothing_or_takes_a_name_away_is_refused(
    client: httpx.Client, model: Path, tmp_path: Path
) -> None:
    before = client.get("/v1/items/item 1").json()
    for item, message in (
        ({}, "No item has a title, a text or a field that changes"),
        ({"title": None, "text": None}, "No item has a title, a text or a field that changes"),
        ({"title": " \n"}, "Item 'item 1' has the title ' \\n': give one with letters, or leave it out."),
        ({"text": ""}, "Item 'item 1' has the text '': give one with letters, or leave it out."),
    ):
        body = {"items": [{"item_id": "item 1", **item}]}
        answer = client.patch("/v1/items", json=body, headers=ADMIN)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_items")
        assert message in answer.json()["error"]["message"]
    assert client.get("/v1/items/item 1").json() == before
    (tmp_path / "changed.csv").write_text("item_id,title\nitem 1,\n")
    assert "No item has a title" in refused("items", "update", model, "--items", tmp_path / "changed.csv")
    assert rqrec("items", "log", model)["current"] == 0  # no version took the place of an older one


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        ("NaN", 400, "NaN is not a number of JSON"),
        ("Infinity", 400, "Infinity is not a number of JSON"),
        ("1e999", 422, "items.0: price is inf: give a finite number, or null."),
    ],
)
def test_fields_are_finite_numbers(number: str, status: int, said: str, client: httpx.Client) -> None:
    """They would be no value, without a word."""
    text = f'{{"items": [{{"item_id": "item 1", "title": "T", "price": {number}}}]}}'
    for method in ("POST", "PATCH"):
        headers = {**ADMIN, "Content-Type": "application/json"}
        answer = client.request(method, "/v1/items", content=text, headers=headers)
        assert answer.status_code == status
        assert said in answer.json()["error"]["message"]


def test_titles_cannot_command_the_terminal(model: Path) -> None:
    title = "Kettle \x1b]0;title\x07\u202egnp.exe"
    Recommender.load(model).update_items([{"item_id": "item 1", "title": title}])
    done = CliRunner().invoke(app, ["items", "find", str(model), "kettle"])
    assert r"Kettle \x1b]0;title\x07\u202egnp.exe" in done.stdout
    assert rqrec("items", "find", model, "kettle")["items"][0]["title"] == title


def test_the_service_and_the_command_say_the_same_of_a_change(
    client: httpx.Client, model: Path, tmp_path: Path
) -> None:
    zero = (
        "1 of 2 new items have a vector of zeros (the first is 'b'): without content they share their codes"
    )
    back = "1 items were removed before and come back with the semantic IDs that they had."
    items = [{"item_id": "a", "title": "A"}, {"item_id": "b", "title": "B"}]
    vectors = [vector(8), [0.0] * DIM]
    given = [{**item, "vector": one} for item, one in zip(items, vectors, strict=True)]
    (note,) = client.post("/v1/items", json={"items": given}, headers=ADMIN).json()["notes"]
    assert note.startswith(zero)
    assert asked(client)  # numbers all the same
    assert client.delete("/v1/items/a", headers=ADMIN).json()["notes"] == []
    assert client.post("/v1/items", json={"items": given[:1]}, headers=ADMIN).json()["notes"] == [back]
    rqrec("items", "rollback", model, 0)
    pl.DataFrame(items).write_csv(tmp_path / "new.csv")
    pl.DataFrame(items[:1]).write_csv(tmp_path / "a.csv")
    np.save(tmp_path / "new.npy", np.array(vectors, dtype=np.float32))
    np.save(tmp_path / "a.npy", np.array(vectors[:1], dtype=np.float32))

    def said(*arguments: object) -> str:
        done = CliRunner().invoke(app, ["items", *map(str, arguments)])
        assert done.exit_code == 0, done.stderr
        return done.stderr

    heard = said("add", model, "--items", tmp_path / "new.csv", "--embeddings", tmp_path / "new.npy")
    assert heard.count("zeros") == 1
    assert zero in heard
    said("remove", model, "a")
    assert back in said("add", model, "--items", tmp_path / "a.csv", "--embeddings", tmp_path / "a.npy")


def test_tables_that_say_nothing_or_are_no_texts_are_refused_in_words_of_the_command(
    model: Path, tmp_path: Path
) -> None:
    for name, text, expected in (
        ("empty.csv", "item_id,title\n", "has no items"),
        ("long.csv", f"item_id,title\n{'x' * 1001},x\n", "more than 1000 characters"),
        ("twice.csv", "item_id,title\na,x\na,y\nb,z\n", "Correct or remove them."),
        ("other.csv", "number,title\na,x\n", "Name the column of the ids item_id."),
        ("nested.jsonl", '{"item_id": "item 1", "title": {"a": 1}}\n', "title must hold text"),
    ):
        (tmp_path / name).write_text(text)
        np.save(tmp_path / "new.npy", np.array([vector(0)]))
        new = ("--items", tmp_path / name, "--embeddings", tmp_path / "new.npy")
        told = refused("items", "add", model, *new)
        assert expected in told
        assert "--drop-invalid" not in told
        if name in ("empty.csv", "other.csv", "nested.jsonl"):
            assert expected in refused("items", "update", model, "--items", tmp_path / name)
    assert "leading zeros" not in refused("items", "remove", model, "")
    assert "1 removed" in str(rqrec("items", "remove", model, "item 1", "item 1"))
    assert rqrec("items", "find", model, "title", "--k", 2**70)["items"]


def test_an_id_with_a_comma_can_be_given_on_the_command_line(model: Path) -> None:
    Recommender.load(model).add_items([{"item_id": "a,b", "title": "New"}], np.array([vector(8)]))
    found = rqrec(
        "recommend", "--artifact", model, "--history", '["item 9", "a,b"]', "--allow", '["a,b", "item 1"]'
    )
    assert (found["history"], found["n_allowed"]) == (["item 9", "a,b"], 1)
    found = rqrec("recommend", "--artifact", model, "--history", "item 9", "--allow", '["a,b"]')
    assert [one["item_id"] for one in found["recommendations"]] == ["a,b"]


def test_a_recommender_with_changes_is_a_new_one(model: Path, tiny_run: Path) -> None:
    before = Recommender.load(model)
    (first,) = before.recommend([HISTORY], k=5)
    item = {"item_id": "new", "title": "New", "text": "t"}
    added = before.add_items([item], np.array([vector(8)]))
    updated = added.update_items([{"item_id": "new", "title": "Newer"}])
    removed = updated.remove_items([first[0].item_id])
    assert [one.version for one in (before, added, updated, removed)] == [0, 1, 2, 3]
    assert before.recommend([HISTORY], k=5)[0].items == first.items
    (found,) = removed.recommend([HISTORY], k=48)
    assert {one.item_id: one.title for one in found}["new"] == "Newer"
    assert first[0].item_id not in [one.item_id for one in found]
    assert found.n_allowed == N_ITEMS + 1 - 1 - 2
    # One made from an older recommender still follows the current version of the folder.
    late = before.remove_items(["item 3"])
    assert late.version == 4
    assert "new" in late.catalog.id_map
    shutil.rmtree(model)
    shutil.copytree(tiny_run / "retrieval", model)  # another one takes its place
    for change in (late.remove_items, before.remove_items):
        with pytest.raises(
            ValueError, match="was replaced by another one since it was read, so nothing was changed"
        ):
            change(["item 4"])
    assert [path.name for path in (model / "versions").iterdir() if not is_lock(path.name)] == []
    with pytest.raises(ValueError, match="not loaded from a folder"):
        Recommender(before.artifact).remove_items(["item 1"])
    for change in (before.add_items, before.update_items):
        with pytest.raises(ValueError, match="title"):
            change([{"item_id": "x", "title": 3}])


def test_the_command_line_adds_updates_lists_and_rolls_back(model: Path, tmp_path: Path) -> None:
    pl.DataFrame({"item_id": ["new 1", "new 2"], "title": ["One", "Two"]}).write_csv(tmp_path / "new.csv")
    np.save(tmp_path / "new.npy", np.array([vector(0), vector(8)], dtype=np.float32))
    add = ("items", "add", model, "--items", tmp_path / "new.csv")
    done = rqrec(*add, "--embeddings", tmp_path / "new.npy")
    assert (done["number"], done["items"], done["new"]) == (1, N_ITEMS + 2, 2)
    assert "'new 1' is in the catalogue already" in refused(*add, "--embeddings", tmp_path / "new.npy")
    (tmp_path / "changed.jsonl").write_text('{"item_id": "new 1", "title": "First"}\n')
    assert rqrec("items", "update", model, "--items", tmp_path / "changed.jsonl")["number"] == 2
    assert rqrec("items", "remove", model, "new 2", "item 3")["items"] == N_ITEMS
    assert "Unknown item id 'lost'" in refused("items", "remove", model, "lost")
    log = rqrec("items", "log", model)
    assert (log["current"], [one["what"] for one in log["versions"]]) == (
        3,
        ["as trained", "2 added", "1 updated", "2 removed"],
    )
    assert rqrec("items", "rollback", model) == {"version": 2}
    assert "has no version 7" in refused("items", "rollback", model, 7)
    assert Recommender.load(model).titles[N_ITEMS] == "First"
    printed = CliRunner().invoke(app, ["items", "log", str(model)]).stdout.splitlines()
    assert [line[0] for line in printed] == [" ", " ", "*", " "]
    assert rqrec("items", "rollback", model, 0) == {"version": 0}


def test_invalid_files_of_items_are_refused_in_a_sentence(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "_hub_is_reachable", lambda: False)
    np.save(tmp_path / "new.npy", np.array([vector(0), vector(8)], dtype=np.float32))
    bad = np.array([vector(0), vector(8)], dtype=np.float32)
    bad[1, 2] = np.nan
    np.save(tmp_path / "bad.npy", bad)
    for text, embeddings, message in (
        ("item_id,title\na,A\nb,B\n", None, "encoder 'tiny' is not cached"),
        ("item_id,title\na,A\n", "new.npy", "There are 1 items, but 2 vectors"),
        ("item_id,title\na,A\nb,B\n", "bad.npy", "has NaN, infinite values"),
        ("item_id,title\na,A\na,B\n", "new.npy", "an item_id that occurs more than once"),
        ("item_id,title\na,A\nb,\n", "new.npy", "no title"),
        ("item_id,text\na,A\nb,B\n", "new.npy", "has no titles"),
        ("item_id,title\na,A\nitem 4,B\n", "new.npy", "'item 4' is in the catalogue already"),
        ("name\na\n", "new.npy", "lacks item_id"),
    ):
        (tmp_path / "new.csv").write_text(text)
        options = ["--embeddings", tmp_path / embeddings] if embeddings else []
        assert message in refused("items", "add", model, "--items", tmp_path / "new.csv", *options)
    (tmp_path / "new.csv").write_text("item_id,price\na,3\n")
    assert "neither title nor text" in refused("items", "update", model, "--items", tmp_path / "new.csv")
    assert (
        "versions" not in [path.name for path in model.iterdir()]
        or not rqrec("items", "log", model)["current"]
    )


@pytest.fixture
def with_fields(tiny_joined: Path, tmp_path: Path) -> Path:
    """A joined model whose items have fields: price (the number of the item) and genres."""
    artifact = read_retrieval(tiny_joined)
    fields = {"price": [float(number) for number in range(N_ITEMS)], "genres": [["drama"]] * N_ITEMS}
    items = artifact.catalog.items.hstack(pl.DataFrame(fields))
    with create(tmp_path / "model", "retrieval", settings={}, inputs={}) as target:
        write_retrieval(target, artifact._replace(catalog=Catalog(items)))
    return tmp_path / "model"


def test_rules_about_fields_apply_to_new_and_changed_items(with_fields: Path, tmp_path: Path) -> None:
    model, path = with_fields, tmp_path / "new.jsonl"
    np.save(tmp_path / "new.npy", np.array([vector(0), vector(8)], dtype=np.float32))
    add = ("items", "add", model, "--items", path, "--embeddings", tmp_path / "new.npy")

    def write(*rows: dict[str, Any]) -> None:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def cheap(**more: Any) -> set[str]:
        (found,) = Recommender.load(model).recommend(
            [HISTORY], k=N_ITEMS, rules=Rules(**{"where": "price < 3", **more})
        )
        return {one.item_id for one in found}

    one, two = {"item_id": "new 1", "title": "One"}, {"item_id": "new 2", "title": "Two"}
    write(one, {**two, "price": "cheap"})
    assert "Item 'new 2' has price 'cheap', but price holds numbers" in refused(*add)
    write({**one, "price": "2.5", "shape": "round"}, {**two, "genres": ["comedy"], "shape": "flat"})
    done = CliRunner().invoke(app, [*map(str, add)])
    assert done.exit_code == 0, done.stderr
    assert (
        "the catalogue has no field shape, so it is left out of the fields; its fields are price, genres"
        in done.stderr
    )
    assert cheap() == {"item 0", "item 1", "item 2", "new 1"}
    assert cheap(where="genres = comedy") == {"new 2"}  # no price, and a genre that is new
    with (
        running({"live": model}, admin_token="boss") as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        item = {"item_id": "new 3", "title": "Three", "vector": vector(9)}
        for field, value in (("shape", "round"), ("price", "cheap"), ("price", {"a": 1})):
            answer = client.post("/v1/items", json={"items": [{**item, field: value}]}, headers=ADMIN)
            assert (answer.status_code, field in answer.json()["error"]["message"]) == (422, True), (
                answer.text
            )
        body = {"items": [{**item, "price": 1, "genres": ["comedy", "crime"]}]}
        assert client.post("/v1/items", json=body, headers=ADMIN).status_code == 200
        assert {*asked(client, where="genres = comedy")} == {"new 2", "new 3"}
        assert {*asked(client, where="price < 3")} == {"item 0", "item 1", "item 2", "new 1", "new 3"}
    assert cheap() == {"item 0", "item 1", "item 2", "new 1", "new 3"}
    write({"item_id": "new 1", "price": 9}, {"item_id": "item 40", "price": 2}, {"item_id": "new 2"})
    rqrec("items", "update", model, "--items", path)
    assert cheap() == {"item 0", "item 1", "item 2", "new 3", "item 40"}
    again = Recommender.load(model).update_items([{"item_id": "new 2", "price": 0.5}, {"item_id": "item 40"}])
    changed = again.catalog.items.filter(pl.col("item_id").is_in(["new 2", "item 40"])).drop("text")
    assert changed.to_dicts() == [
        {"item_id": "item 40", "title": "Title 40", "price": 2.0, "genres": ["drama"]},
        {"item_id": "new 2", "title": "Two", "price": 0.5, "genres": ["comedy"]},
    ]
    assert cheap() == {"item 0", "item 1", "item 2", "new 2", "new 3", "item 40"}
    with pytest.raises(ValueError, match="Item 'new 2' has price 'x', but price holds numbers"):
        again.update_items([{"item_id": "new 2", "price": "x"}])


def test_texts_of_new_items_are_encoded_by_the_models_own_encoder(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = json.loads((model / "embeddings.json").read_text())
    assert settings["encoder"] == "tiny"
    read = []

    def encode(texts: list[str], encoder: str) -> np.ndarray:
        read.append((list(texts), encoder))
        return np.array([vector(8) for _ in texts], dtype=np.float32)

    monkeypatch.setattr(item_vectors, "encode_texts", encode)
    (tmp_path / "new.csv").write_text("item_id,title,brand\na,A kettle,Acme\n")
    rqrec("items", "add", model, "--items", tmp_path / "new.csv")
    assert read == [(["A kettle; brand: Acme"], "tiny")]
    assert Recommender.load(model).recommend([HISTORY], experts=["content"])[0][0].item_id == "a"
