"""Upstream: where missing bytes and metadata come from."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from proxy.hub.names import CommitSha, RepoId, RepoPath, Revision
from proxy.hub.wire import RepoInfo, TreeEntry

Piece = bytes | memoryview  # of a body; valid until the next one is asked for


class Located(Protocol):
    """A file that an upstream can be asked for. `Entry` and `TreeEntry` are such."""

    @property
    def repo(self) -> RepoId: ...
    @property
    def commit(self) -> CommitSha: ...
    @property
    def path(self) -> RepoPath: ...
    @property
    def size(self) -> int: ...


class Upstream(Protocol):
    """Where bytes and names come from. Believed about neither."""

    @property
    def name(self) -> str:
        """For logs, metrics and blame. Holds no secret."""
        ...

    @property
    def connections(self) -> int:
        """How many ranges of one large file may be asked for at once; 1 means one after another."""
        ...

    async def info(self, repo: RepoId, revision: Revision) -> RepoInfo:
        """What the revision means there, now, and how the repository is described.

        Only `tasks/` ask. Raises: UpstreamUnavailable, UpstreamMissing, UpstreamForbidden.
        """
        ...

    def tree(self, repo: RepoId, commit: CommitSha) -> AsyncGenerator[TreeEntry]:
        """Every file of the commit. Only `tasks/` ask.

        Raises: UpstreamUnavailable (also half way), UpstreamMissing, UpstreamForbidden.
        """
        ...

    def fetch(self, file: Located, start: int, stop: int) -> AsyncGenerator[Piece]:
        """The bytes [start, stop) of a file, unverified, and never more than asked for.

        It may end early without an error: the caller counts. Raises: UpstreamUnavailable (also
        half way), UpstreamMissing, UpstreamForbidden, and RangeIgnored when `start` is not 0 and
        the upstream can only begin at the beginning.
        """
        ...

    def source(self, file: Located) -> str:
        """The name of who delivered this file last, as far as it is known; for the audit log."""
        ...

    def blame(self, file: Located) -> None:
        """The bytes that were last fetched for this file were wrong: prefer another source."""
        ...

    async def close(self) -> None:
        """Give up connections. Closing twice is fine."""
        ...
