"""What a log line looks like, in every process of ours.

    text    2026-03-01 09:00:00,123 INFO proxy.server.run: listening on 0.0.0.0:8090
              | Traceback (most recent call last):        (only with an exception)
    json    {"time": "2026-03-01T09:00:00.123Z", "level": "INFO", "logger": "proxy.server.run",
             "message": "listening on 0.0.0.0:8090", "exception": "Traceback …"}    on one line

Clients and upstreams choose some of the words in it. None of them can begin a line of its own or
move the cursor of a terminal (CWE-117, log injection).
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

TEXT, JSON = "text", "json"
STYLES = (TEXT, JSON)


def setup(style: str, level: int, *, logger: str = "") -> None:
    """Write to stderr from here on; `logger` stands in for the names of all loggers."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(logger) if style == JSON else TextLines(logger))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def escaped(text: str) -> str:
    """Without characters that end a line or move a cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class TextLines(logging.Formatter):
    """A line for each record, and an indented one for each line of a traceback."""

    def __init__(self, logger: str = "") -> None:
        super().__init__()
        self._logger = logger

    def format(self, record: logging.LogRecord) -> str:
        head = f"{self.formatTime(record)} {record.levelname} {self._logger or record.name}"
        lines = [escaped(f"{head}: {record.getMessage()}")]
        for line in _exception(self, record).split("\n"):
            if line:
                lines.append(f"  | {escaped(line)}")
        return "\n".join(lines)


class JsonLines(logging.Formatter):
    """A JSON object for each record."""

    def __init__(self, logger: str = "") -> None:
        super().__init__()
        self._logger = logger

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": _time(record.created),
            "level": record.levelname,
            "logger": self._logger or record.name,
            "message": record.getMessage(),
        }
        exception = _exception(self, record)
        if exception:
            said["exception"] = exception
        # Half a surrogate pair, as in a file name that is not UTF-8, is no JSON for strict readers;
        # json.dumps leaves DEL as it is.
        plain = {key: _encodable(value) for key, value in said.items()}
        return json.dumps(plain).replace("\x7f", "\\u007f")


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The traceback and the stack of a record; "" if it has none."""
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    elif record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
