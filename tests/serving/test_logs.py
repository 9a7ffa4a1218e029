"""The log of the service: JSON for machines, a line with the address for people."""

import json
import logging

import pytest

from rqrec.core import progress
from rqrec.serving.logs import LOG, log_to_stderr
from rqrec.serving.server import page_url


def lines(capsys: pytest.CaptureFixture[str], log_format: str) -> list[str]:
    log_to_stderr("info", log_format)  # type: ignore[arg-type]
    url = "Open http://localhost:8000/ in a browser. Stop with Ctrl-C."
    LOG.info("listening", extra={"fields": {"port": 8000, "text": url}})
    LOG.info("request", extra={"fields": {"status": 200, "path": "/v1/items"}})
    LOG.info("request", extra={"fields": {"status": 500, "path": "/v1/users"}})
    LOG.info("reloaded", extra={"fields": {"models": 2}})
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("rqrec.retrieval.vector_index").warning("every one of %s items is scored", "300,000")
    progress.log("2 items come back.")
    try:
        raise ValueError("no such folder")
    except ValueError as error:
        LOG.error("reload refused", exc_info=error)
    return capsys.readouterr().err.splitlines()


def test_people_see_the_address_and_what_goes_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, "text") == [
        "Open http://localhost:8000/ in a browser. Stop with Ctrl-C.",
        "request status=500 path=/v1/users",
        "reloaded models=2",
        "warning: every one of 300,000 items is scored",
        "2 items come back.",
        "error: reload refused (no such folder)",
    ]


@pytest.mark.parametrize("log_format", ["json", "auto"])  # standard error of a test is no terminal
def test_machines_get_an_object_per_line(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    found = [json.loads(line) for line in lines(capsys, log_format)]
    assert [one["message"] for one in found] == [
        *("listening", "request", "request", "reloaded", "Started server process"),
        *("every one of 300,000 items is scored", "2 items come back.", "reload refused"),
    ]
    assert found[0]["port"] == 8000
    assert "Traceback" in found[-1]["traceback"]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/"),
        ("0.0.0.0", "http://localhost:80/"),
        ("::", "http://localhost:80/"),
        ("::1", "http://[::1]:80/"),
    ],
)
def test_the_address_is_one_that_a_browser_here_can_open(host: str, url: str) -> None:
    assert page_url(host, 80) == url
