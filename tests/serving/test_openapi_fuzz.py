"""Valid and invalid requests generated from the OpenAPI: never status 500, always a described response."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from rqrec.serving.app import create_app
from rqrec.serving.config import ServiceConfig
from rqrec.serving.metrics import Metrics
from rqrec.serving.model_registry import ModelRegistry
from tests.serving.running import LOCAL


@pytest.fixture
def app(tiny_run: Path) -> Iterator[Any]:
    """One app per test: schemathesis may run its lifespan, which closes the registry."""
    registry = ModelRegistry({"tiny": tiny_run}, ServiceConfig(), Metrics())
    yield create_app(registry, ServiceConfig(allow_hosts=("localhost", "testserver")), Metrics())
    registry.close()


@pytest.mark.slow
def test_generated_requests_get_the_described_responses(app: Any) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis import checks

    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    rules = [
        checks.not_a_server_error,
        checks.response_schema_conformance,
        checks.content_type_conformance,
        checks.status_code_conformance,
    ]
    answered_operations = []
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in schemathesis.GenerationMode:

            @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(case=operation.as_strategy(generation_mode=mode))
            def answered(case: Any) -> None:
                case.call_and_validate(checks=rules)

            with suppress(Unsatisfiable):  # a route without parameters has no invalid requests
                answered()
                answered_operations.append((operation.path, mode))
    assert len({path for path, _ in answered_operations}) == 17
    assert len(answered_operations) > 16


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["item 1", "item 9", "codes"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
FIELDS = (
    "history",
    "histories",
    "timestamps",
    "user",
    "users",
    "k",
    "exclude_seen",
    "allow",
    "block",
    "where",
    "max_per",
    "boost",
    "rules",
    "unknown",
    "experts",
    "explain",
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=JSON | st.dictionaries(st.sampled_from(FIELDS), JSON, min_size=1))
def test_no_json_body_causes_a_server_error(app: Any, body: Any) -> None:
    import json

    from starlette.testclient import TestClient

    client = TestClient(app, LOCAL, raise_server_exceptions=False)
    response = client.post(
        "/v1/recommendations",
        content=json.dumps(body).encode(),  # NaN and Infinity included, which JSON does not have
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code in (200, 400, 404, 422), response.text
    if response.status_code == 200:
        assert set(response.json()) == {"model", "recommendations", "notes"}
    else:
        assert set(response.json()["error"]) == {"code", "message", "request_id"}
