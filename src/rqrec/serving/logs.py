"""Logs of the service on standard error: JSON, one object per line, or sentences for people."""

import json
import logging
import sys
import time
from typing import Any, Literal

from rqrec.core.progress import write_lines_by

PACKAGE = "rqrec"
LOG = logging.getLogger(f"{PACKAGE}.serving")
LogFormat = Literal["auto", "json", "text"]
SHOWN_STATUS = 500  # requests with a lower one are not shown to people


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object: time (UTC), level, message, then the fields of `extra={"fields": ...}`."""

    def format(self, record: logging.LogRecord) -> str:
        """The log line of a record."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Formats a record as a line for people: the field `text` if there is one, else the message and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The log line of a record."""
        fields = dict(_fields(record))
        line = fields.pop("text", None) or " ".join(
            [record.getMessage(), *(f"{name}={value}" for name, value in fields.items())]
        )
        prefix = f"{record.levelname.lower()}: " if record.levelno > logging.INFO else ""
        return f"{prefix}{line}" + (f" ({record.exc_info[1]})" if record.exc_info else "")


def log_to_stderr(level: str, log_format: LogFormat) -> None:
    """Send the logs of the service, of all that it calls in this package, and of its HTTP server to standard error.

    "auto" is text where standard error is a terminal, and JSON elsewhere. As text, requests that succeed
    are left out.
    """
    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    if as_text:
        handler.addFilter(_concerns_people)
    for name in (PACKAGE, "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper())
    if not as_text:
        write_lines_by(LOG.info)


def _concerns_people(record: logging.LogRecord) -> bool:
    if record.name != LOG.name and record.levelno <= logging.INFO:
        return False  # what the HTTP server and others say of themselves
    return record.getMessage() != "request" or _fields(record).get("status", 0) >= SHOWN_STATUS


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "fields", {})
