"""What requests ask for, and the answers that have one form everywhere on a Hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import unquote

from proxy.hub.wire import Json
from tests.fakes.content import Literal
from tests.fakes.http1 import EMPTY, Reply, Request, apply_range
from tests.fakes.world import Commit, File, Repo

VERBS = frozenset(
    {"revision", "tree", "paths-info", "refs", "commits", "auth-check", "xet-read-token"}
)
_TYPES = {"models": "", "datasets": "datasets/", "spaces": "spaces/"}


@dataclass(frozen=True, slots=True)
class Address:
    """What a request path asks for; `tail` holds revision and path, still encoded."""

    route: str
    repo: str = ""
    tail: tuple[str, ...] = ()


def parse(raw_path: str) -> Address:
    segments = raw_path.lstrip("/").split("/")
    if segments[:2] == ["api", "resolve-cache"]:
        for at in (4, 5):  # a name has one part or two, and then comes the commit
            if len(segments) > at + 1 and len(segments[at]) == 40:
                name = _TYPES.get(segments[2], "") + unquote("/".join(segments[3:at]))
                return Address("resolve-cache", name, tuple(segments[at:]))
    if segments[0] == "api":
        if len(segments) < 2 or segments[1] not in _TYPES:
            return Address("/".join(segments))
        rest = segments[2:]
        for at in (2, 1):
            if len(rest) > at and rest[at] in VERBS:
                name = _TYPES[segments[1]] + unquote("/".join(rest[:at]))
                return Address(rest[at], name, tuple(rest[at + 1 :]))
        if not rest or rest == [""]:
            return Address("list", "", (segments[1],))
        return Address("info", _TYPES[segments[1]] + unquote("/".join(rest)))
    prefix, rest = "", segments
    if segments[0] in ("datasets", "spaces"):
        prefix, rest = f"{segments[0]}/", segments[1:]
    for at in (2, 1):
        if len(rest) > at + 1 and rest[at] in ("resolve", "raw"):
            return Address(rest[at], prefix + unquote("/".join(rest[:at])), tuple(rest[at + 1 :]))
    return Address("page")


def split(repo: Repo, tail: tuple[str, ...]) -> tuple[Commit | None, str]:
    """The commit and the decoded path that `{rev}/{path}` mean; None if no such revision.

    The slash of `refs/pr/1` arrives encoded from some clients and bare from others.
    """
    for end in range(1, len(tail) + 1):
        commit = repo.find("/".join(unquote(segment) for segment in tail[:end]))
        if commit is not None:
            return commit, "/".join(unquote(segment) for segment in tail[end:])
    return None, "/".join(unquote(segment) for segment in tail[1:])


def bare(repo: str) -> str:
    """A repository's name without its type."""
    kind, _, name = repo.partition("/")
    return name if kind in ("datasets", "spaces") else repo


def file_bytes(file: File, request: Request) -> Reply:
    headers = [("Content-Type", "application/octet-stream"), ("ETag", f'"{file.etag}"')]
    reply = Reply(200, headers, file.content)
    apply_range(reply, request)
    return reply


def json_answer(body: object, status: int = 200) -> Reply:
    """Compact, as the Hub writes it."""
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    content = Literal(text.encode())
    return Reply(status, [("Content-Type", "application/json; charset=utf-8")], content)


def error(status: int, code: str, message: str) -> Reply:
    body: Json = {"error": message}
    reply = json_answer(body, status)
    if code:
        reply.set("X-Error-Code", code)
    reply.set("X-Error-Message", message)
    return reply


def xml(status: int, code: str, message: str) -> Reply:
    """An object store's refusal."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Reply(status, [("Content-Type", "application/xml")], Literal(body.encode()))


def redirect(status: int, location: str) -> Reply:
    return Reply(status, [("Location", location)], EMPTY)
