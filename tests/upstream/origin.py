"""Origin: an HTTP server on loopback that says exactly what a test tells it to, faults included."""

from __future__ import annotations

import asyncio
import json as stdlib_json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from tests.fakes.world import Commit, Repo, World, info_json, tree_json

Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Said:
    """One response. `body` may be shorter or longer than `length`, which is what it promises."""

    status: int = 200
    body: bytes = b""
    headers: Headers = field(default_factory=dict)
    length: int | None = None  # Content-Length; None: that of the body; -1: none at all
    raw: bytes | None = None  # sent in place of everything
    hang: bool = False  # and then nothing, until the client goes


@dataclass(frozen=True, slots=True)
class Asked:
    path: str
    query: str
    headers: Headers


Answering = Callable[[Asked], Said]


class Origin:
    """Answers each path from its script (the last line of it for ever), else by `otherwise`."""

    def __init__(self) -> None:
        self.port = 0
        self.host = "127.0.0.1"
        self.scripts: dict[str, list[Said]] = {}
        self.otherwise: Answering = lambda _: Said(404)
        self.asked: list[Asked] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [one.path for one in self.asked]

    def say(self, path: str, *answers: Said) -> None:
        self.scripts[path] = list(answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            target = urlsplit(head[0].split(" ")[1])
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head[1:] if line)
            }
            asked = Asked(target.path, target.query, headers)
            self.asked.append(asked)
            script = self.scripts.get(asked.path)
            if script is None:
                said = self.otherwise(asked)
            else:
                said = script.pop(0) if len(script) > 1 else script[0]
            writer.write(_encoded(said) if said.raw is None else said.raw)
            await writer.drain()
            if said.hang:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def _encoded(said: Said) -> bytes:
    lines = [f"HTTP/1.1 {said.status} Said", "Connection: close"]
    length = len(said.body) if said.length is None else said.length
    if length >= 0:
        lines.append(f"Content-Length: {length}")
    lines += [f"{name}: {value}" for name, value in said.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + said.body


@asynccontextmanager
async def origin(host: str = "127.0.0.1") -> AsyncIterator[Origin]:
    made = Origin()
    made.host = host
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await made.serve(reader, writer)
        finally:
            running.discard(task)

    server = await asyncio.start_server(serve, host, 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await server.wait_closed()


def json(value: object, **headers: str) -> Said:
    kept = {name.replace("_", "-"): text for name, text in headers.items()}
    return Said(
        200, stdlib_json.dumps(value).encode(), {"Content-Type": "application/json", **kept}
    )


def error(status: int, code: str = "", message: str = "") -> Said:
    return Said(status, b"", {"X-Error-Code": code, "X-Error-Message": message})


def of_world(world: World) -> Answering:
    """A small Hub without a CDN."""

    def answer(asked: Asked) -> Said:
        parts = asked.path.strip("/").split("/")
        if parts[0] == "api":
            name = "/".join(parts[2:4])
            repo = world.repos.get(name if parts[1] == "models" else f"{parts[1]}/{name}")
            if repo is None:
                return error(404, "RepoNotFound")
            return _api(repo, parts[4], unquote(parts[5]) if len(parts) > 5 else "main")
        at = parts.index("resolve")
        repo = world.repos.get("/".join(parts[:at]))
        if repo is None:
            return error(404, "RepoNotFound")
        commit = repo.find(unquote(parts[at + 1]))
        return _file(commit, unquote("/".join(parts[at + 2 :])), asked)

    return answer


def _api(repo: Repo, verb: str, revision: str) -> Said:
    if verb == "refs":
        return json(
            {
                "branches": [{"name": n, "ref": f"refs/heads/{n}"} for n in repo.branches],
                "tags": [{"name": n, "ref": f"refs/tags/{n}"} for n in repo.tags],
            }
        )
    commit = repo.find(revision)
    if commit is None:
        return error(404, "RevisionNotFound")
    return json(info_json(repo, commit) if verb == "revision" else tree_json(commit))


def _file(commit: Commit | None, path: str, asked: Asked) -> Said:
    if commit is None or path not in commit.files:
        return error(404, "EntryNotFound")
    content = commit.files[path].content
    headers = {"X-Repo-Commit": str(commit.sha)}
    if "range" not in asked.headers:
        return Said(200, content.read(0, content.size), headers)
    first, last = (int(n) for n in asked.headers["range"].removeprefix("bytes=").split("-"))
    headers["Content-Range"] = f"bytes {first}-{last}/{content.size}"
    return Said(206, content.read(first, last + 1), headers)
