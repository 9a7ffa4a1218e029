"""Ids of items are any text: each id that the catalogue takes can be asked for and removed over HTTP."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from rqrec.data.ids import LONGEST_ID
from tests.serving.running import running
from tests.tiny import tiny_vectors

ADMIN = {"Authorization": "Bearer boss"}
DOTS = (".", "..")  # a path cannot hold them: clients take them for folders
ODD = (
    *(
        "a/similar",
        "similar",
        "/similar",
        "a/",
        "/",
        "//",
        "a/../b",
        "../..",
        *DOTS,
        "...",
        "a\nb",
        "\0",
        "\u202e",
    ),
    *(
        "?",
        "a?k=1",
        "#",
        "%",
        "%2F",
        "a%2Fsimilar",
        "+",
        "a b",
        "&id=1",
        ";",
        '"',
        "\\",
        "e\u0301",
        "ß" * LONGEST_ID,
    ),
)
ADDED: set[str] = set()  # an id can be added to the one catalogue of these tests only once
IDS = st.text("/.?#%&=+, \n\\2Fsimlar", min_size=1, max_size=12) | st.text(min_size=1, max_size=20)


@pytest.fixture(scope="module")
def client(tiny_joined: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    model = tmp_path_factory.mktemp("ids") / "retrieval"
    shutil.copytree(tiny_joined / "retrieval", model)
    with (
        running({"live": model}, admin_token="boss") as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        yield client


def paths(item_id: str) -> list[str]:
    """The paths of an item."""
    encoded = quote(item_id, safe="")
    return [f"/v1/item?id={encoded}", *([] if item_id in DOTS else [f"/v1/items/{encoded}"])]


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@example(ids=ODD)
@given(ids=st.lists(IDS.filter(str.strip), min_size=1, max_size=4, unique=True))
def test_every_id_can_be_asked_for_changed_and_removed(client: httpx.Client, ids: Sequence[str]) -> None:
    ids = [item_id for item_id in ids if item_id not in ADDED]
    assume(ids)
    ADDED.update(ids)
    items = [
        {"item_id": item_id, "title": f"Title {number}", "vector": tiny_vectors()[number].tolist()}
        for number, item_id in enumerate(ids)
    ]
    assert client.post("/v1/items", json={"items": items}, headers=ADMIN).status_code == 200
    titles = {item_id: f"New title {number}" for number, item_id in enumerate(ids)}
    updates = [{"item_id": item_id, "title": title} for item_id, title in titles.items()]
    assert client.patch("/v1/items", json={"items": updates}, headers=ADMIN).status_code == 200
    for item_id, title in titles.items():
        for path in paths(item_id):
            found = client.get(path).json()
            assert (found["item_id"], found["title"]) == (item_id, title)
            similar = client.get(path.replace("?", "/similar?") if "?" in path else f"{path}/similar").json()
            assert len(similar["items"]) == 10
    for number, item_id in enumerate(ids[:9]):  # each removal makes a version of the catalogue
        assert client.delete(paths(item_id)[-(number % 2)], headers=ADMIN).status_code == 200
        for path in paths(item_id):
            assert client.get(path).json()["error"]["code"] == "removed_item"


def test_a_longer_id_is_refused_and_a_repeated_parameter(client: httpx.Client) -> None:
    item = {"item_id": "x" * (LONGEST_ID + 1), "title": "Long", "vector": tiny_vectors()[0].tolist()}
    refused = client.post("/v1/items", json={"items": [item]}, headers=ADMIN)
    assert (refused.status_code, str(LONGEST_ID) in refused.text) == (422, True)
    assert client.delete("/v1/item", params={"id": "a"}).status_code == 401
    repeated = client.delete("/v1/item?id=item+1&id=item+2", headers=ADMIN)
    assert (repeated.status_code, repeated.json()["error"]["code"]) == (422, "repeated_parameter")
