"""An upstream made of upstreams, in order of preference."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from proxy.errors import (
    RangeIgnored,
    UpstreamError,
    UpstreamForbidden,
    UpstreamMissing,
    UpstreamUnavailable,
)
from proxy.hub.names import CommitSha, RepoId, RepoPath, Revision
from proxy.hub.wire import RepoInfo, TreeEntry
from proxy.upstream.base import Located, Piece, Upstream

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_Key = tuple[RepoId, CommitSha, RepoPath]
_BLAME_REST = 10  # times rest_s for a member that delivered wrong bytes
_REMEMBERED = 10_000  # files whose source is known; older ones are forgotten


class Failover:
    """Asks the best member that is not resting, then the next; if all rest, all are asked.

    A member rests after it failed. A member that was blamed for a file also comes last for that
    file. A body that breaks half way is the caller's to resume: its next `fetch` meets the next
    member.
    """

    def __init__(
        self,
        members: Sequence[Upstream],
        rest_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not members:
            raise ValueError("a failover needs at least one upstream")
        self._members = tuple(members)
        self._rest_s = rest_s
        self._clock = clock
        self._rests_until = [float("-inf")] * len(self._members)
        self._delivered: OrderedDict[_Key, int] = OrderedDict()  # file → member, oldest first
        self._blamed: OrderedDict[_Key, set[int]] = OrderedDict()

    @property
    def name(self) -> str:
        return ", ".join(member.name for member in self._members)

    @property
    def connections(self) -> int:
        return self._members[self._order()[0]].connections

    async def info(self, repo: RepoId, revision: Revision) -> RepoInfo:
        return await self._first(lambda member: member.info(repo, revision))

    async def tree(self, repo: RepoId, commit: CommitSha) -> AsyncGenerator[TreeEntry]:
        problems: list[UpstreamError] = []
        for index in self._order():
            begun = False
            try:
                async with aclosing(self._members[index].tree(repo, commit)) as entries:
                    async for entry in entries:
                        begun = True
                        yield entry
                return
            except UpstreamError as e:
                self._failed(index, e)
                if begun:
                    raise
                problems.append(e)
        raise _combined(problems)

    async def fetch(self, file: Located, start: int, stop: int) -> AsyncGenerator[Piece]:
        if start >= min(stop, file.size):
            return
        problems: list[UpstreamError] = []
        for index in self._order(_key(file)):
            member, got = self._members[index], 0
            try:
                async with aclosing(member.fetch(file, start, stop)) as body:
                    async for chunk in body:
                        if not got:
                            _remember(self._delivered, _key(file), index)
                        got += len(chunk)
                        yield chunk
            except UpstreamError as e:
                self._failed(index, e)
                if got:
                    raise
                problems.append(e)
                continue
            if got >= min(stop, file.size) - start:
                return
            # A silent end is the caller's to notice, but his next try belongs to the next member.
            early = UpstreamUnavailable(member.name, f"{file.path!a} ended early, without an error")
            self._failed(index, early)
            if got:
                return
            problems.append(early)
        raise _combined(problems)

    def source(self, file: Located) -> str:
        index = self._delivered.get(_key(file))
        return self.name if index is None else self._members[index].source(file)

    def blame(self, file: Located) -> None:
        key = _key(file)
        index = self._delivered.get(key)
        if index is None:
            return
        blamed = self._blamed.get(key, set()) | {index}
        _remember(self._blamed, key, blamed)
        self._rest(index, _BLAME_REST * self._rest_s)
        log.warning("%s delivered wrong bytes of %s", self._members[index].name, file.path)
        self._members[index].blame(file)

    async def close(self) -> None:
        for member in self._members:
            await member.close()

    async def _first(self, ask: Callable[[Upstream], Awaitable[_T]]) -> _T:
        problems: list[UpstreamError] = []
        for index in self._order():
            try:
                return await ask(self._members[index])
            except UpstreamError as e:
                self._failed(index, e)
                problems.append(e)
        raise _combined(problems)

    def _order(self, key: _Key | None = None) -> list[int]:
        now = self._clock()
        blamed = self._blamed.get(key, set()) if key is not None else set()
        return sorted(
            range(len(self._members)),
            key=lambda index: (index in blamed, self._rests_until[index] > now, index),
        )

    def _failed(self, index: int, e: UpstreamError) -> None:
        """Rest, unless the answer was just: it has no such file, no right to it, no ranges."""
        if isinstance(e, UpstreamUnavailable):
            self._rest(index, max(self._rest_s, e.retry_after_s or 0))
            log.info("%s rests: %s", self._members[index].name, e.problem)

    def _rest(self, index: int, seconds: float) -> None:
        self._rests_until[index] = max(self._rests_until[index], self._clock() + seconds)


def _key(file: Located) -> _Key:
    return file.repo, file.commit, file.path


def _remember(memory: OrderedDict[_Key, _T], key: _Key, value: _T) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > _REMEMBERED:
        memory.popitem(last=False)


def _combined(problems: Sequence[UpstreamError]) -> UpstreamError:
    """One error that tells most: what a caller can act on comes first."""
    if len(problems) == 1:
        return problems[0]
    names = ", ".join(e.upstream for e in problems)
    text = "; ".join(f"{e.upstream}: {e.problem}" for e in problems)
    if any(isinstance(e, RangeIgnored) for e in problems):
        return RangeIgnored(names, text)  # from the beginning, it would work
    if any(isinstance(e, UpstreamForbidden) for e in problems):
        return UpstreamForbidden(names, text)
    if all(isinstance(e, UpstreamMissing) for e in problems):
        return UpstreamMissing(names, text)
    waits = [e.retry_after_s for e in problems if isinstance(e, UpstreamUnavailable)]
    known = [wait for wait in waits if wait is not None]
    # Who names no time may be back any moment: the others' is not everybody's.
    wait_s = min(known) if len(known) == len(waits) else None
    return UpstreamUnavailable(names, text, retry_after_s=wait_s)
