"""The upstream of a mirror that may ask nobody."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from proxy.errors import UpstreamOffline
from proxy.hub.names import CommitSha, RepoId, Revision
from proxy.hub.wire import RepoInfo, TreeEntry
from proxy.upstream.base import Located


class OfflineUpstream:
    """Answers everything with UpstreamOffline, without opening a connection."""

    name = "none (offline)"
    connections = 1

    async def info(self, repo: RepoId, revision: Revision) -> RepoInfo:
        raise UpstreamOffline

    async def tree(self, repo: RepoId, commit: CommitSha) -> AsyncGenerator[TreeEntry]:
        raise UpstreamOffline
        yield  # makes this a generator

    async def fetch(self, file: Located, start: int, stop: int) -> AsyncGenerator[bytes]:
        raise UpstreamOffline
        yield  # makes this a generator

    def source(self, file: Located) -> str:
        return self.name

    def blame(self, file: Located) -> None:
        pass

    async def close(self) -> None:
        pass
