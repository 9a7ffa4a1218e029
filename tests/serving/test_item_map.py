"""The map of a catalogue over HTTP, and the places that it is made of."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from rqrec.serving.app import create_app
from rqrec.serving.config import ServiceConfig
from rqrec.serving.map_layout import lay_out, place_between
from rqrec.serving.metrics import Metrics
from rqrec.serving.model_registry import ModelRegistry
from tests.serving.running import LOCAL
from tests.tiny import FAMILIES, N_ITEMS, SIZE, tiny_vectors


def client_of(run: Path) -> TestClient:
    config, metrics = ServiceConfig(admin_token="boss"), Metrics()
    registry = ModelRegistry({"main": run}, config, metrics)
    return TestClient(create_app(registry, config, metrics), base_url=LOCAL)


def map_of(client: TestClient, **headers: str) -> Any:
    while (response := client.get("/v1/map", headers=headers)).status_code == 202:
        assert response.headers["Retry-After"] == "1"
        time.sleep(0.05)
    return response


def distances(places_N2: np.ndarray) -> np.ndarray:
    return np.linalg.norm(places_N2[:, None] - places_N2[None], axis=2)


def share_of_nearest_in_family(places_N2: np.ndarray, families_N: np.ndarray) -> float:
    distances_NN = distances(places_N2)
    np.fill_diagonal(distances_NN, np.inf)
    return float((families_N[distances_NN.argmin(axis=1)] == families_N).mean())


@pytest.fixture
def families() -> np.ndarray:
    return np.repeat(np.arange(FAMILIES), SIZE)


def test_similar_items_are_near_each_other(families: np.ndarray) -> None:
    places = lay_out(tiny_vectors())
    assert places.min() >= 0
    assert places.max() <= 1
    assert share_of_nearest_in_family(places, families) == 1
    assert np.array_equal(places, lay_out(tiny_vectors()))


def test_items_that_are_not_landmarks_are_placed_near_similar_ones(
    families: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rqrec.serving.map_layout.MAX_LANDMARKS", N_ITEMS // 2)
    places = lay_out(tiny_vectors())
    assert share_of_nearest_in_family(places, families) > 0.9
    assert len(np.unique(places, axis=0)) == N_ITEMS


@pytest.mark.parametrize("n_items", range(5))
def test_the_smallest_catalogues_have_places(n_items: int) -> None:
    places = lay_out(tiny_vectors()[:n_items])
    assert places.shape == (n_items, 2)
    assert np.isfinite(places).all()
    assert len(np.unique(places, axis=0)) == n_items


def test_equal_vectors_have_places_between_zero_and_one() -> None:
    places = lay_out(np.ones((40, 3)))
    assert np.isfinite(places).all()
    assert places.min() >= 0
    assert places.max() <= 1
    assert np.isfinite(place_between(np.ones((3, 2)), np.ones((2, 2)), places[:2])).all()


def test_the_map_has_a_place_for_each_item_and_named_clusters(tiny_joined: Path) -> None:
    with client_of(tiny_joined) as client:
        response = map_of(client)
        shown = response.json()
        assert response.headers["Content-Encoding"] == "gzip"
        assert shown["item_ids"] == [f"item {item}" for item in range(N_ITEMS)]
        assert shown["titles"] == [f"Title {item}" for item in range(N_ITEMS)]
        codes = [client.get(f"/v1/items/item {item}").json()["semantic_id"][0] for item in range(N_ITEMS)]
        assert shown["codes"] == codes
        places = np.array([shown["x"], shown["y"]]).T
        assert places.min() >= 0
        assert places.max() <= shown["side"]
        for level in (0, 1):
            clusters = [cluster for cluster in shown["clusters"] if cluster["level"] == level]
            assert sum(cluster["n_items"] for cluster in clusters) == N_ITEMS
            assert all(cluster["words"] or cluster["best_known"] for cluster in clusters)


def test_browsers_keep_the_map(tiny_run: Path) -> None:
    with client_of(tiny_run) as client:
        etag = map_of(client).headers["ETag"]
        assert map_of(client, **{"If-None-Match": etag}).status_code == 304
        plain = map_of(client, **{"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in plain.headers
        assert plain.headers["ETag"] != etag
        assert plain.json() == map_of(client).json()


def test_a_map_that_failed_is_reported(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: np.ndarray) -> None:
        raise ValueError("no places")

    monkeypatch.setattr("rqrec.serving.item_map.lay_out", fail)
    with client_of(tiny_run) as client:
        response = map_of(client)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "map_failed"


def test_a_changed_catalogue_keeps_the_places_of_its_items(tiny_joined: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_joined / "retrieval", tmp_path / "retrieval")
    admin = {"Authorization": "Bearer boss"}
    item = {"item_id": "new", "title": "New", "vector": (tiny_vectors()[SIZE] + 0.01).tolist()}
    with client_of(tmp_path / "retrieval") as client:
        before = map_of(client).json()
        assert client.post("/v1/items", json={"items": [item]}, headers=admin).status_code == 200
        assert client.delete("/v1/items/item 0", headers=admin).status_code == 200
        after = map_of(client).json()
    assert after["version"] > before["version"]
    assert after["item_ids"] == [*before["item_ids"][1:], "new"]
    for axis in "xy":
        assert after[axis][:-1] == before[axis][1:]
    places = np.array([after["x"], after["y"]]).T
    nearest = after["item_ids"][np.linalg.norm(places[:-1] - places[-1], axis=1).argmin()]
    assert nearest in [f"item {number}" for number in range(SIZE, 2 * SIZE)]
