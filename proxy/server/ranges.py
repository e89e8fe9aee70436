"""RFC 9110: what part of a file a request wants, and whether it wants one at all. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*", re.ASCII | re.IGNORECASE)
_TAG = re.compile(r'[ \t,]*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*(?:,|$)')


@dataclass(frozen=True, slots=True)
class Whole:
    """200, the whole file."""


@dataclass(frozen=True, slots=True)
class Slice:
    """206, the bytes [start, stop)."""

    start: int
    stop: int
    open_ended: bool  # written `N-`, as someone does who goes on with a broken download


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """416, nothing of the range lies inside the file."""


@dataclass(frozen=True, slots=True)
class NotModified:
    """304, the client has it."""


@dataclass(frozen=True, slots=True)
class PreconditionFailed:
    """412, the client wants another file than this."""


_WHOLE = Whole()
Wanted = Whole | Slice | Unsatisfiable | NotModified | PreconditionFailed


def wanted(method: str, headers: Mapping[str, str], etag: str, size: int) -> Wanted:
    """What to answer, in the order of RFC 9110 §13.2.2. `etag` is bare: no quotes, strong.

    We send no Last-Modified, so conditions on dates never apply (§13.1.3, §13.1.4).
    """
    match = _list(headers, "If-Match")
    if match is not None and not _matches(match, etag, weak=False):
        return PreconditionFailed()
    none_match = _list(headers, "If-None-Match")
    if none_match is not None and _matches(none_match, etag, weak=True):
        return NotModified()
    # §14.2: "A server MUST ignore a Range header field received with a request method that is
    # unrecognized or for which range handling is not defined." Only GET defines it.
    text = headers.get("Range")
    if text is None or method != "GET":
        return _WHOLE
    condition = headers.get("If-Range")
    # §13.1.5: a strong comparison; a date never matches what has no Last-Modified.
    if condition is not None and condition.strip() != f'"{etag}"':
        return _WHOLE
    return parse_range(text, size)


def parse_range(text: str, size: int) -> Wanted:
    """§14.1.2. Several ranges, another unit and bad syntax are ignored: the whole file is sent."""
    match = _RANGE.fullmatch(text)
    if match is None or len(text) > 100:
        return _WHOLE
    first, last, suffix = match.groups()
    if suffix is not None:
        count = int(suffix)
        if count == 0:
            return Unsatisfiable()
        return Slice(max(0, size - count), size, open_ended=False) if size else _WHOLE
    start = int(first)
    if last and int(last) < start:
        return _WHOLE
    if size == 0 and start == 0:
        return _WHOLE  # JS and Rust probe `bytes=0-0` and fail on 416 for an empty file
    if start >= size:
        return Unsatisfiable()
    stop = min(int(last) + 1, size) if last else size
    return Slice(start, stop, open_ended=not last)


def _list(headers: Mapping[str, str], name: str) -> str | None:
    """A field that is a list; it may come in several lines (§5.3)."""
    first = headers.get(name)
    getall = getattr(headers, "getall", None)  # aiohttp's headers have it, a plain mapping has not
    return first if first is None or getall is None else ",".join(getall(name))


def _matches(header: str, etag: str, *, weak: bool) -> bool:
    if header.strip() == "*":
        return True
    at = 0
    while (match := _TAG.match(header, at)) is not None:  # what is no list of tags ends it
        weakness, tag = match.groups()
        if tag == etag and (weak or not weakness):
            return True
        at = match.end()
    return False
