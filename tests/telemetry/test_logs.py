"""One record is one line, whatever is in it."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.telemetry.logs import JsonLines, TextLines, escaped

FORGED = "a\n2026-01-01 00:00:00,000 ERROR root: forged\x1b[2J\r\x85\u2028\x7f\x00"


def record(message: str, *, error: Exception | None = None) -> logging.LogRecord:
    raised = None
    if error is not None:
        try:
            raise error
        except type(error):
            raised = sys.exc_info()
    return logging.LogRecord("proxy.x", logging.WARNING, __file__, 1, "%s", (message,), raised)


def test_a_json_line_has_every_fact() -> None:
    said = json.loads(JsonLines().format(record("the disk is slow")))
    assert datetime.fromisoformat(said.pop("time")).utcoffset() == timedelta(0)
    assert said == {"level": "WARNING", "logger": "proxy.x", "message": "the disk is slow"}


def test_an_exception_is_text_in_its_json_line() -> None:
    line = JsonLines().format(record("broken", error=ValueError("no\nway")))
    assert line.isprintable()
    said = json.loads(line)
    assert said["exception"].startswith("Traceback")
    assert said["exception"].endswith("ValueError: no\nway")


def test_a_record_without_an_exception_has_no_such_key() -> None:
    assert "exception" not in json.loads(JsonLines().format(record("fine")))


@pytest.mark.parametrize("lines", [TextLines(), JsonLines()], ids=["text", "json"])
def test_a_message_cannot_begin_a_line_or_paint(lines: logging.Formatter) -> None:
    line = lines.format(record(FORGED))
    assert len(line.splitlines()) == 1
    assert line.isprintable()


def test_an_error_that_forges_a_line_stays_in_its_indented_traceback() -> None:
    first, *rest = TextLines().format(record("broken", error=ValueError(FORGED))).split("\n")
    assert first.endswith("WARNING proxy.x: broken")
    assert any("forged" in line for line in rest)
    for line in rest:
        assert line.startswith("  | ")
        assert line.isprintable()


def test_a_json_message_is_what_was_said() -> None:
    assert json.loads(JsonLines().format(record(FORGED)))["message"] == FORGED


def test_a_file_name_that_is_no_text_is_still_json() -> None:
    line = JsonLines().format(record("lost \udcff"))
    assert json.loads(line)["message"] == "lost \\udcff"


def test_a_process_may_name_itself() -> None:
    assert json.loads(JsonLines("fetcher").format(record("x")))["logger"] == "fetcher"
    assert TextLines("fetcher").format(record("x")).endswith(" WARNING fetcher: x")


@given(st.text(st.characters()))
def test_no_text_makes_a_second_line(text: str) -> None:
    assert escaped(text).isprintable()
    for lines in (TextLines(), JsonLines()):
        assert lines.format(record(text)).isprintable()
