"""Hostile configurations and requests: refused in a sentence, or understood; nothing in them runs."""

import builtins
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from rqrec.core.config import configured
from rqrec.serving.app import create_app
from rqrec.serving.config import ServiceConfig
from rqrec.serving.metrics import Metrics
from rqrec.serving.model_registry import ModelRegistry
from rqrec.stages.train_decoder import TrainDecoderConfig
from tests.fuzz.mutations import damaged_bytes, damaged_text, damaged_value
from tests.fuzz.test_files import EXAMPLES, SHORT, time_limit
from tests.serving.running import LOCAL

CONFIG = b"""
include 'base.gin'
import data.processed
N = 3
train.iterations = %N
train.dataset = %data.processed.RecDataset.AMAZON
train.batch_size = 5
train_decoder.attn_heads = 2
train.save_dir_root = "out"
"""
REQUEST = {
    "histories": [["item 1", "item 9"], []],
    "timestamps": [[1700000000, "2023-11-14T22:13:20Z"], []],
    "users": ["a", None],
    "k": 3,
    "exclude_seen": True,
    "allow": ["item 2", "item 3"],
    "block": ["item 3"],
    "max_per_code": 2,
    "unknown": "skip",
    "experts": ["codes"],
    "explain": True,
}


def fuzz(examples: int) -> Any:
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=examples < SHORT,
    )


def fuzz_gin(folder: Path, monkeypatch: pytest.MonkeyPatch, examples: int) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("A configuration ran something.")

    (folder / "base.gin").write_text("train.learning_rate = 0.1")
    monkeypatch.chdir(folder)
    for owner, name in ((os, "system"), (subprocess, "Popen"), (builtins, "eval")):
        monkeypatch.setattr(owner, name, never)

    @fuzz(examples)
    @given(st.data())
    def refused_or_read(data: st.DataObject) -> None:
        damage = data.draw(st.sampled_from([damaged_text, damaged_bytes]))
        Path("run.gin").write_bytes(damage(data.draw, CONFIG))
        with time_limit(), suppress(ValueError, FileNotFoundError):
            configured(TrainDecoderConfig(), ("train", "train_decoder"), [Path("run.gin")])

    refused_or_read()


def test_a_few_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz_gin(tmp_path, monkeypatch, 60)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz_gin(tmp_path, monkeypatch, EXAMPLES)


@pytest.fixture(scope="module")
def client(tiny_joined: Path) -> Iterator[TestClient]:
    config, metrics = ServiceConfig(max_wait_ms=0.0), Metrics()
    registry = ModelRegistry({"joined": tiny_joined}, config, metrics)
    yield TestClient(create_app(registry, config, metrics), LOCAL, raise_server_exceptions=False)
    registry.close()


def fuzz_bodies(client: TestClient, examples: int) -> None:
    @fuzz(examples)
    @given(st.data())
    def refused_or_answered(data: st.DataObject) -> None:
        content = json.dumps(REQUEST).encode()
        if data.draw(st.integers(0, 3)):
            content = json.dumps(damaged_value(data.draw, REQUEST)).encode()
        else:
            content = data.draw(st.sampled_from([damaged_text, damaged_bytes]))(data.draw, content)
        with time_limit():
            response = client.post(
                "/v1/recommendations", content=content, headers={"Content-Type": "application/json"}
            )
        assert response.status_code in (200, 400, 404, 422), (content, response.text)
        expected = {"error"} if response.status_code > 200 else {"model", "recommendations"}
        assert set(response.json()) == expected

    refused_or_answered()


def test_a_few_bodies(client: TestClient) -> None:
    fuzz_bodies(client, 40)


@pytest.mark.parametrize(
    "content", [b"[" * 500_000, b'{"a":' * 100_000, b"{}" * 9, b"", b"\xff", b"1" * 5000]
)
def test_bodies_that_parsers_fear(client: TestClient, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.post("/v1/recommendations", content=content, headers=headers)
    assert response.status_code in (400, 422), response.text
    assert response.json()["error"]["request_id"] == response.headers["X-Request-ID"]


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_bodies(client: TestClient) -> None:
    fuzz_bodies(client, EXAMPLES)
