"""Pictures of items, from one folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from rqrec.serving.app import create_app
from rqrec.serving.config import ServiceConfig
from rqrec.serving.metrics import Metrics
from rqrec.serving.model_registry import ModelRegistry
from rqrec.serving.pictures import MAX_BYTES, Pictures

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
JPEG = b"\xff\xd8\xff\xe0" + bytes(40)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, content in {
        "item 1.png": PNG,
        "item 2.JPG": JPEG,
        "page.png": b"<script>alert(1)</script>",
        "large.png": PNG + bytes(MAX_BYTES),
        "drawing.svg": b"<svg/>",
    }.items():
        (folder / name).write_bytes(content)
    (tmp_path / "secret.png").write_bytes(PNG)
    return folder


def test_a_picture_is_found_by_id_or_by_the_name_that_the_catalogue_gives(folder: Path) -> None:
    pictures = Pictures(folder)
    assert pictures.address("item 1", None) == "v1/pictures/item%201.png"
    assert pictures.address("7", "https://shop.example/covers/large.png?size=3") == "v1/pictures/large.png"
    assert pictures.address("7", "covers/item 2.JPG") == "v1/pictures/item%202.JPG"
    for image in ("other.png", "http://[x", "//a\u2100b/large.png"):  # the last two are no addresses at all
        assert pictures.address("7", image) is None
    assert pictures.address("item 9", None) is None
    assert Pictures(None).address("item 1", None) is None


@pytest.mark.parametrize("name", ["page.png", "large.png", "drawing.svg", "../secret.png", "secret.png", ""])
def test_what_is_no_picture_of_the_folder_is_not_served(folder: Path, name: str) -> None:
    assert Pictures(folder).read(name) is None


def test_a_picture_that_is_gone_is_missed_and_not_an_error(folder: Path) -> None:
    pictures = Pictures(folder)
    (folder / "item 2.JPG").unlink()
    assert pictures.read("item 2.JPG") is None


def test_a_folder_that_is_not_there_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="there is no such folder"):
        Pictures(tmp_path / "nowhere")


@pytest.fixture
def client(tiny_run: Path, folder: Path) -> Iterator[TestClient]:
    config, metrics = ServiceConfig(pictures=folder), Metrics()
    registry = ModelRegistry({"tiny": tiny_run}, config, metrics)
    with TestClient(create_app(registry, config, metrics), base_url="http://localhost") as client:
        yield client


def test_items_have_their_pictures_and_the_service_serves_them(client: TestClient) -> None:
    first, second = "v1/pictures/item%201.png", "v1/pictures/item%202.JPG"
    assert client.get("/v1/items/item 2").json()["image"] == second
    images = {one["item_id"]: one["image"] for one in client.get("/v1/items?page_size=100").json()["items"]}
    assert (images["item 1"], images["item 2"], images["item 3"]) == (first, second, None)
    answer = client.get(f"/{second}")
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "image/jpeg", JPEG)
    assert client.get("/v1/pictures/secret.png").status_code == 404
    request = {"history": ["item 5"], "k": 40, "describe": True}
    items = client.post("/v1/recommendations", json=request).json()["recommendations"][0]["items"]
    assert {one["item_id"]: one["image"] for one in items}["item 2"] == second
