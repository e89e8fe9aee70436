"""FakeHub: an upstream in memory, with faults that a test switches on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from proxy.errors import RangeIgnored, UpstreamForbidden, UpstreamMissing, UpstreamUnavailable
from proxy.hub.names import CommitSha, RepoId, RepoPath, Revision
from proxy.hub.wire import RepoInfo, TreeEntry, parse_info, parse_tree_entry
from proxy.pins.lock import Entry
from proxy.upstream.base import Located
from tests.fakes.content import Blob, Twisted, as_blob
from tests.fakes.world import Commit, File, Repo, World, info_json, tree_json


class FakeHub:
    """An `Upstream` over a `World`: no sockets, no clock, no randomness.

    Every fault is an attribute; what happened is recorded in attributes too.
    """

    def __init__(self, name: str = "fake", world: World | None = None) -> None:
        self.name = name
        self.connections = 1
        self.world = world or World()
        self.chunk = 64 * 1024  # bytes in each piece of a fetch

        # Faults.
        self.down = False  # nothing answers
        self.lies = False  # as many bytes as there should be, and all of them wrong
        self.cut_after: int | None = None  # once, a fetch breaks off after so many bytes
        self.cut_quietly = False  # that fetch ends without an error
        self.ignores_range = False  # a fetch can only begin at the beginning
        self.missing = False  # it answers, and has no file
        self.forbidden = False  # it answers, and does not let us in
        self.granted = True  # our token opens gated and private repositories
        self.retry_after_s: float | None = None  # said while `down`
        self.cut_tree_after: int | None = None  # once, a tree breaks off after so many files
        self.gate: asyncio.Event | None = None  # a fetch waits for it before each piece

        # What happened.
        self.asked: list[tuple[str, str]] = []  # repository and revision of each info()
        self.listed: list[tuple[str, str]] = []  # repository and commit of each tree()
        self.fetched: list[tuple[str, int]] = []  # path and start of each fetch()
        self.ranges: list[tuple[str, int, int]] = []  # path, start and stop of each fetch()
        self.blamed: list[str] = []  # path of each blame()
        self.sent = 0  # bytes
        self.active = 0  # fetches under way
        self.most_active = 0
        self.at_gate = asyncio.Event()  # set while a fetch waits at the gate
        self.closed = 0

    def publish(
        self,
        repo: str,
        path: str,
        data: Blob | bytes | str,
        *,
        lfs: bool = True,
        branch: str = "main",
    ) -> Entry:
        """The file, in a new commit on the branch; files of earlier commits stay in it."""
        file = File(as_blob(data), lfs)
        commit = self.world.repo(repo).commit({path: file}, branch=branch)
        return entry_of(RepoId(repo), commit, path, file)

    def entries(self, repo: str, revision: str = "main") -> dict[str, Entry]:
        """Every file of a revision, by path."""
        at = self.world.repo(repo).at(revision)
        return {path: entry_of(RepoId(repo), at.sha, path, file) for path, file in at.files.items()}

    async def info(self, repo: RepoId, revision: Revision) -> RepoInfo:
        self.asked.append((repo, revision))
        held, commit = self._find(repo, revision)
        raw = info_json(held, commit)
        return parse_info(raw, held.kind(revision))

    async def tree(self, repo: RepoId, commit: CommitSha) -> AsyncGenerator[TreeEntry]:
        self.listed.append((repo, commit))
        _, at = self._find(repo, commit)
        left = self.cut_tree_after
        for raw in tree_json(at) or []:
            entry = parse_tree_entry(raw, repo, commit)
            if entry is None:
                continue
            if left is not None:
                if left == 0:
                    self.cut_tree_after = None
                    raise UpstreamUnavailable(self.name, "the tree broke off")
                left -= 1
            yield entry

    async def fetch(self, file: Located, start: int, stop: int) -> AsyncGenerator[bytes]:
        self.fetched.append((file.path, start))
        self.ranges.append((file.path, start, stop))
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            blob = self._blob(file)
            if start and self.ignores_range:
                raise RangeIgnored(self.name, "answered 200 to a range")
            stop = min(stop, blob.size)
            end = stop
            if self.cut_after is not None and start + self.cut_after < stop:
                end, self.cut_after = start + self.cut_after, None
            for at in range(start, end, self.chunk):
                await self._pass_gate()
                if self.down:
                    raise UpstreamUnavailable(self.name, "the connection was lost")
                piece = blob.read(at, min(at + self.chunk, end))
                self.sent += len(piece)
                yield piece
            if end < stop and not self.cut_quietly:
                raise UpstreamUnavailable(self.name, "the connection was cut")
        finally:
            self.active -= 1

    def source(self, file: Located) -> str:
        return self.name

    def blame(self, file: Located) -> None:
        self.blamed.append(file.path)

    async def close(self) -> None:
        self.closed += 1

    async def _pass_gate(self) -> None:
        if self.gate is None:
            # A real fetch lets others run between two pieces.
            await asyncio.sleep(0)
            return
        self.at_gate.set()
        await self.gate.wait()
        self.at_gate.clear()

    def _blob(self, file: Located) -> Blob:
        repo, commit = self._find(file.repo, file.commit)
        if (repo.gated and not self.granted) or self.forbidden:
            raise UpstreamForbidden(self.name, f"{file.repo} is gated")
        held = commit.files.get(file.path)
        if held is None or self.missing:
            raise UpstreamMissing(self.name, f"no {file.path!a} in {file.repo}")
        return Twisted(held.content, everywhere=True) if self.lies else held.content

    def _find(self, name: str, revision: str) -> tuple[Repo, Commit]:
        if self.down:
            raise UpstreamUnavailable(self.name, "is down", self.retry_after_s)
        repo = self.world.repos.get(self.world.renamed.get(name, name))
        # The Hub does not tell a stranger that a private repository exists.
        if repo is None or (repo.private and not self.granted):
            raise UpstreamMissing(self.name, f"no repository {name}")
        commit = repo.find(revision)
        if commit is None:
            raise UpstreamMissing(self.name, f"{name} has no revision {revision}")
        return repo, commit


def entry_of(repo: RepoId, commit: CommitSha, path: str, file: File) -> Entry:
    return Entry(repo, commit, RepoPath(path), file.size, file.digest, file.git_oid, file.lfs)
