"""Logs as JSON on standard error, one object per line."""

import json
import logging
import time

LOG = logging.getLogger("rqrec.serving")


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object: time (UTC), level, message, then the fields of `extra={"fields": ...}`."""

    def format(self, record: logging.LogRecord) -> str:
        """The log line of a record."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_json(level: str) -> None:
    """Send the logs of the service and of its HTTP server to standard error as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    for name in (LOG.name, "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper())
