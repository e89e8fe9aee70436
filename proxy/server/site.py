"""What every handler needs: the mirror, and how to say who we are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from aiohttp import web

from proxy.errors import Refused, RevisionNotPinned
from proxy.hub.names import Pair, RepoId, Revision
from proxy.mirror.mirror import Mirror
from proxy.mirror.packs import GitPacks
from proxy.pins.catalog import Snapshot
from proxy.pins.gitrepo import GitCommits
from proxy.pins.lock import Entry
from proxy.server import cors
from proxy.server.autolock import AutoLock
from proxy.server.bodies import Bodies
from proxy.server.drift import DriftWatch
from proxy.server.ready import Head, headers_of
from proxy.server.sender import Sender
from proxy.server.upkeep import Upkeep
from proxy.telemetry import audit
from proxy.telemetry.audit import Handed, Served
from proxy.telemetry.metrics import Tally

# The Hub's client gives up on a request without a byte for ten seconds (huggingface_hub,
# constants.py, HF_HUB_DOWNLOAD_TIMEOUT); before that we ask it to come again.
FIRST_BYTE_S = 8.0
_HEADS = 10_000  # that are kept, of 1 kB each
_AGENT = 200  # characters of a User-Agent that are written down


class Heads(Protocol):
    """Heads of locked files, kept for those that were asked for of late."""

    def __call__(self, entry: Entry, warning: str = "") -> Head: ...


class Owner(Protocol):
    """The main process, as its workers see it: it owns the data directory and knows the rest."""

    async def settle(self, pair: Pair, patience_s: float) -> None:
        """As `AutoLock.settle`."""
        ...

    async def status(self) -> bytes:
        """What it answers for /-/status. Raises: Busy."""
        ...

    async def metrics(self) -> bytes:
        """What it answers for /metrics. Raises: Busy."""
        ...


class Others(Protocol):
    """The processes that answer beside the main one, as it sees them."""

    @property
    def pids(self) -> list[int]: ...

    def stop(self) -> None:
        """Have them take no new connections and end; `grace_s` for answers under way."""
        ...

    async def tallies(self) -> list[Tally]:
        """What they have counted until this moment, those that ended included."""
        ...


@dataclass(slots=True)
class Site:
    """One process that answers: the main one, or a worker of it."""

    mirror: Mirror
    autolock: AutoLock
    upkeep: Upkeep
    sender: Sender
    bodies: Bodies = field(default_factory=Bodies)
    started: float = field(default_factory=time.time)  # Unix seconds
    stopping: bool = False
    grace_s: float = 20.0  # for answers under way when we are asked to stop
    owner: Owner | None = None  # None: that is us
    others: Others | None = None  # None: there are none, or we are one of them
    commits: GitCommits = field(default_factory=GitCommits)
    packs: GitPacks = field(init=False)
    drift: DriftWatch = field(init=False)
    headers: dict[str, str] = field(init=False)  # the same on every answer
    heads: Heads = field(init=False)

    def __post_init__(self) -> None:
        mirror = self.mirror
        self.drift = DriftWatch(mirror)
        self.headers = {
            "X-Content-Type-Options": "nosniff",
            "Server": "hubpin",
            **(cors.HEADERS if mirror.config.cors else {}),
        }
        self.heads = lru_cache(_HEADS)(self._head)
        folder = mirror.config.data / "git-v1"
        self.packs = GitPacks(folder, mirror.cache, mirror.store, mirror.config.keep_free)

    def _head(self, entry: Entry, warning: str = "") -> Head:
        return Head.of(headers_of(entry, warning), entry.size, self.headers)

    async def snapshot(self, repo: RepoId, revision: str | None, *, patience_s: float) -> Snapshot:
        """What a revision is locked to; a pair that is being locked right now is waited for.

        Raises: Refused, Busy, UpstreamError (it could not be locked).
        """
        try:
            return self.mirror.catalog.snapshot(repo, revision)
        except RevisionNotPinned as e:
            pair = Pair.of(repo, Revision(e.revision))
            await (self.owner or self.autolock).settle(pair, patience_s)
            return self.mirror.catalog.snapshot(repo, revision)


@dataclass(slots=True)
class Call:
    """One request, as handlers see it."""

    site: Site
    request: web.BaseRequest
    id: str  # for X-Request-Id and the log
    # Turns an error into the form that this client shows; JSON, if nothing is said.
    retell: Callable[[web.Response], web.Response] = lambda response: response
    patience_s: float = FIRST_BYTE_S  # until the first byte of a file has to be there
    by_digest: bool = False  # asked for bytes, and not for a file of some commit
    handed: int = 0  # the status that nginx answers with in our stead; 0: we answer

    @property
    def headers(self) -> dict[str, str]:
        """What every answer carries."""
        return {"X-Request-Id": self.id, **self.site.headers}

    @property
    def device(self) -> str:
        """The address that asks; IPv4 as such, also if it came over an IPv6 socket."""
        return (self.request.remote or "").removeprefix("::ffff:")

    def served(self, entry: Entry, span: tuple[int, int], reached: int) -> None:
        """Note in the audit log how much of a span of a file went out."""
        named = not self.by_digest
        self.site.mirror.audit.note(
            Served(
                device=self.device,
                request=self.id,
                agent=self.request.headers.get("User-Agent", "")[:_AGENT],
                repo=entry.repo if named else "",
                commit=entry.commit if named else "",
                path=entry.path if named else "",
                digest=entry.digest,
                size=entry.size,
                start=span[0],
                stop=span[1],
                sent=reached - span[0],
                complete=reached >= span[1],
            )
        )

    def handed_over(self, entry: Entry, span: tuple[int, int], status: int) -> None:
        """Note in the audit log that nginx sends a span of a file, or as much as it can."""
        self.handed = status
        named = not self.by_digest
        self.site.mirror.audit.note(
            Handed(
                device=self.device,
                request=self.id,
                agent=self.request.headers.get("User-Agent", "")[:_AGENT],
                repo=entry.repo if named else "",
                commit=entry.commit if named else "",
                path=entry.path if named else "",
                digest=entry.digest,
                size=entry.size,
                start=span[0],
                stop=span[1],
            )
        )

    def refused(self, error: Refused, status: int) -> None:
        """Note it in the audit log."""
        self.site.mirror.audit.note(
            audit.Refused(
                device=self.device,
                request=self.id,
                agent=self.request.headers.get("User-Agent", "")[:_AGENT],
                method=self.request.method,
                target=self.request.raw_path[:500],
                status=status,
                error=type(error).__name__,
                message=str(error)[:500],
            )
        )

    def flag(self, name: str) -> bool:
        """Booleans arrive as `true`, `True` and `1`."""
        return self.request.query.get(name, "").lower() in ("true", "1")

    def json(self, body: bytes, headers: dict[str, str] | None = None) -> web.Response:
        return web.Response(body=body, content_type="application/json", headers=headers)
