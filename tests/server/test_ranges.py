"""Ranges and preconditions: every small case against a model, and odd texts against none."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.server import ranges
from proxy.server.ranges import (
    NotModified,
    PreconditionFailed,
    Slice,
    Unsatisfiable,
    Whole,
    parse_range,
    wanted,
)

ETAG = "abc123"
SMALL = range(7)


def model(first: int | None, last: int | None, size: int) -> set[int] | None:
    """The offsets that `bytes=first-last` means; None if it is no range at all."""
    if first is None:
        assert last is not None
        return set(range(size)[-last:]) if last else set()
    if last is not None and last < first:
        return None
    return {at for at in range(size) if first <= at <= (size if last is None else last)}


def spelled(first: int | None, last: int | None) -> str:
    return f"bytes={'' if first is None else first}-{'' if last is None else last}"


def offsets(answer: ranges.Wanted, size: int) -> set[int]:
    match answer:
        case Slice(start, stop):
            assert 0 <= start < stop <= size, "a 206 is never empty"
            return set(range(start, stop))
        case Unsatisfiable():
            return set()
    raise AssertionError(answer)


@pytest.mark.parametrize("size", range(1, 6))
def test_every_small_range_is_what_the_model_says(size: int) -> None:
    for first, last in itertools.product([None, *SMALL], [None, *SMALL]):
        if first is None and last is None:
            continue
        meant = model(first, last, size)
        answer = parse_range(spelled(first, last), size)
        if meant is None:
            assert answer == Whole()
        else:
            assert offsets(answer, size) == meant, spelled(first, last)


@given(
    st.none() | st.integers(0, 10**12), st.none() | st.integers(0, 10**12), st.integers(1, 10**11)
)
def test_every_range_lies_inside_the_file(first: int | None, last: int | None, size: int) -> None:
    answer = parse_range(spelled(first, last), size)
    if isinstance(answer, Slice):
        assert 0 <= answer.start < answer.stop <= size
        assert answer.open_ended == (first is not None and last is None)
        if first is not None:
            assert answer.start == first
            assert last is None or answer.stop == min(last + 1, size)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("bytes=0-", Whole()),
        ("bytes=0-0", Whole()),
        ("bytes=-1", Whole()),
        ("bytes=-0", Unsatisfiable()),
        ("bytes=1-", Unsatisfiable()),
    ],
)
def test_an_empty_file_is_whole_unless_more_of_it_is_asked_for(
    text: str, answer: ranges.Wanted
) -> None:
    assert parse_range(text, 0) == answer


@pytest.mark.parametrize(
    "text",
    [
        "", "bytes", "bytes=", "bytes=-", "bytes=--1", "bytes=1", "bytes=a-b", "bytes=0x1-2",
        "bytes=1-2,4-5", "bytes=1-2, -1", "bytes=,1-2", "items=1-2", "bytes 1-2", "bytes=1 -2",
        "bytes=+1-2", "bytes=1.0-2", "bytes=-+5", "bytes=١-٢", "bytes=1-2;", "bytes=1-2\n",
        "bytes=" + "9" * 200 + "-", "bytes=0-0" + ",1-1" * 1500, "none",
    ],
)  # fmt: skip
def test_what_is_no_single_range_is_ignored(text: str) -> None:
    # RFC 9110 §14.2: "A server MAY ignore the Range header field."
    assert parse_range(text, 10) == Whole()


@pytest.mark.parametrize(
    "text", ["bytes=2-4", "Bytes=2-4", "BYTES=2-4", "bytes= 2-4", "bytes=2-4 "]
)
def test_a_unit_has_no_case_and_space_around_is_allowed(text: str) -> None:
    # RFC 9110 §14.1: "Range unit names are case-insensitive."
    assert parse_range(text, 10) == Slice(2, 5, open_ended=False)


@given(st.text(max_size=40), st.integers(0, 20))
@example("bytes=" + "0" * 95, 5)
def test_any_text_at_all_has_an_answer(text: str, size: int) -> None:
    answer = parse_range(text, size)
    assert isinstance(answer, Whole | Slice | Unsatisfiable)
    if isinstance(answer, Slice):
        assert re.search("[0-9]", text)


# --- preconditions --------------------------------------------------------------------------------

STATES = {None: None, "same": f'"{ETAG}"', "weak": f'W/"{ETAG}"', "other": '"x"', "any": "*"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("match", STATES)
@pytest.mark.parametrize("none_match", STATES)
@pytest.mark.parametrize("if_range", [None, "same", "weak", "other", "date"])
@pytest.mark.parametrize("span", [None, "bytes=2-4", "bytes=50-"])
def test_conditions_are_asked_in_the_order_of_the_rfc(
    method: str, match: str | None, none_match: str | None, if_range: str | None, span: str | None
) -> None:
    """RFC 9110 §13.2.2: If-Match, If-None-Match, then Range with If-Range."""
    texts = {
        "If-Match": STATES[match],
        "If-None-Match": STATES[none_match],
        "If-Range": "Wed, 21 Oct 2015 07:28:00 GMT" if if_range == "date" else STATES[if_range],
        "Range": span,
    }
    headers = {name: text for name, text in texts.items() if text is not None}
    expected: ranges.Wanted
    if match in ("weak", "other"):  # §13.1.1: "An origin server MUST use the strong comparison"
        expected = PreconditionFailed()
    elif none_match in ("same", "weak", "any"):  # §13.1.2: the weak comparison
        expected = NotModified()
    elif method != "GET" or span is None or if_range in ("weak", "other", "date"):
        expected = Whole()
    else:
        expected = Slice(2, 5, open_ended=False) if span == "bytes=2-4" else Unsatisfiable()
    assert wanted(method, headers, ETAG, 10) == expected


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        (f'"{ETAG}"', True),
        (f'"x", "{ETAG}"', True),
        (f'"x","{ETAG}","y"', True),
        (f'W/"x" , W/"{ETAG}"', True),
        (f'"a,b", "{ETAG}"', True),
        (" * ", True),
        (f'"x{ETAG}"', False),
        (f'"{ETAG}x"', False),
        (f'"{ETAG.upper()}"', False),
        (f'w/"{ETAG}"', False),
        (ETAG, False),
        (f'"{ETAG}', False),
        ("", False),
        ('""', False),
        ('"*"', False),
        (f'"x, {ETAG}"', False),
    ],
)
def test_a_list_of_tags_matches_if_one_of_them_is_ours(text: str, matches: bool) -> None:
    answer = wanted("GET", {"If-None-Match": text}, ETAG, 10)
    assert isinstance(answer, NotModified) == matches


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_whatever_the_headers_say_a_part_is_only_sent_of_this_version(
    match: str, none_match: str, if_range: str, span: str
) -> None:
    headers = {"If-Match": match, "If-None-Match": none_match, "If-Range": if_range, "Range": span}
    answer = wanted("GET", headers, ETAG, 10)
    if isinstance(answer, Slice):
        assert if_range.strip() == f'"{ETAG}"'


def test_a_list_of_tags_may_come_in_several_fields() -> None:
    """RFC 9110 §5.3: they mean what one field means that has all of them, with commas between."""
    tags = [("If-None-Match", '"x"'), ("If-None-Match", f'"{ETAG}"')]
    assert wanted("GET", CIMultiDict(tags), ETAG, 10) == NotModified()
    tags = [("If-Match", '"x"'), ("If-Match", f'"{ETAG}"')]
    assert wanted("GET", CIMultiDict(tags), ETAG, 10) == Whole()
    assert wanted("GET", CIMultiDict(tags[:1]), ETAG, 10) == PreconditionFailed()
