"""Messages between our processes: JSON lines over a socket pair.

For downloads, from who wants them (the server; a worker) to who does them (the fetcher; the main
process), and back:

    →   {"do": "fetch", "id": n, "entry": {…}}
        {"do": "expose", "id": n, "limit": bytes}
    ←   {"id": n, "front": …, "attempt": …, "inode": …, "wrong": attempts}
        {"id": n, "exposed": bytes}
        {"id": n, "wrong": …, "source": …, "held": true} or "error": {…} instead
        {"limited": n}    the fetcher alone: so many more answers 429 of upstreams

Everything else between a worker and the main process is in `talk.py`, on a line of its own.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator

from proxy import errors
from proxy.errors import MirrorError, StoreError
from proxy.hub.names import CommitSha, Digest, GitOid, RepoId, RepoPath
from proxy.hub.wire import Json
from proxy.pins.lock import Entry

_LINE = 64 << 20  # bytes; the longest is a status with a line for each pair


class Channel:
    """One end of the line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, message: Json) -> None:
        """Queue a message; a line that broke is noticed by `messages`."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def drain(self) -> None:
        """Wait until the other end has taken most of what was sent."""
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    async def messages(self) -> AsyncGenerator[Json]:
        """What the other end says, until it is gone."""
        while True:
            try:
                line = await self._reader.readline()
            except (ConnectionError, ValueError):
                return
            if not line.endswith(b"\n"):
                return
            yield json.loads(line)

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return


async def connect(sock: socket.socket) -> Channel:
    """The channel over our end of a socket pair."""
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock, limit=_LINE)
    return Channel(reader, writer)


def dump_entry(entry: Entry) -> Json:
    return {
        "repo": entry.repo,
        "commit": entry.commit,
        "path": entry.path,
        "size": entry.size,
        "digest": entry.digest,
        "git_oid": entry.git_oid,
        "lfs": entry.lfs,
    }


def load_entry(raw: object) -> Entry:
    """Raises: ValueError, KeyError, InvalidName."""
    if not isinstance(raw, dict):
        raise ValueError("an entry is an object")
    return Entry(
        RepoId(raw["repo"]),
        CommitSha(raw["commit"]),
        RepoPath(raw["path"]),
        int(raw["size"]),
        Digest(raw["digest"]),
        GitOid(raw["git_oid"]),
        bool(raw["lfs"]),
    )


def dump_error(error: MirrorError) -> Json:
    """An error with its facts, as far as JSON can carry them; as the nearest kind in errors.py,
    if it is one of another module's own."""
    kinds = (kind.__name__ for kind in type(error).__mro__)
    kind = next(name for name in kinds if hasattr(errors, name))
    facts = {
        key: value
        for key, value in vars(error).items()
        if isinstance(value, str | int | float | None)
    }
    return {"kind": kind, "text": str(error), "facts": facts}


def load_error(raw: object) -> MirrorError:
    """The error that `dump_error` was given; a StoreError if it is one that we do not know."""
    if not isinstance(raw, dict):
        return StoreError("another process failed and did not say how")
    text, facts = str(raw.get("text", "")), raw.get("facts")
    kind = getattr(errors, str(raw.get("kind")), StoreError)
    if not (isinstance(kind, type) and issubclass(kind, MirrorError)):
        kind = StoreError
    # Its constructor makes the message from the facts; here the message is there already.
    error: MirrorError = kind.__new__(kind, text)
    error.args = (text,)
    if isinstance(facts, dict):
        vars(error).update(facts)
    return error
