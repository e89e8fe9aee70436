"""An upstream that is asked for bytes slowly, and at certain hours only."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from proxy.errors import WindowClosed
from proxy.hub.names import CommitSha, RepoId, Revision
from proxy.hub.wire import RepoInfo, TreeEntry
from proxy.upstream.base import Located, Piece, Upstream

_DAY = 24 * 60  # minutes
_WINDOW = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)-([01]?\d|2[0-3]):([0-5]\d)")
_BURST_S = 0.25  # how much may come at once

Now = Callable[[], datetime]
Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of the day, in this machine's local time; [opens, closes) in minutes."""

    opens: int
    closes: int  # less than `opens`, if midnight is in it

    @classmethod
    def parse(cls, text: str) -> Window:
        """`22:00-06:00`. Raises: ValueError."""
        match = _WINDOW.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                f"{text[:40]!a} are no hours of the day; write for example 22:00-06:00"
            )
        hours = [int(one) for one in match.groups()]
        opens, closes = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
        if opens == closes:
            raise ValueError(f"{text[:40]!a} opens when it closes")
        return cls(opens, closes)

    def wait_s(self, now: datetime) -> float:
        """Seconds until it opens; 0 if it is open."""
        minute = now.hour * 60 + now.minute
        if (minute - self.opens) % _DAY < (self.closes - self.opens) % _DAY:
            return 0.0
        return (self.opens - minute) % _DAY * 60.0 - now.second


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast and when. A rate of 0 is no limit, and no window is always open."""

    rate: float = 0.0  # bytes per second
    window: Window | None = None

    def closed_s(self, now: Now = datetime.now) -> float:
        """Seconds until bytes may be asked for; 0 if they may be now."""
        return self.window.wait_s(now()) if self.window is not None else 0.0


class Paced:
    """At most `rate` bytes per second over all fetches, inside of the window; an `Upstream`.

    Outside of the window a fetch ends with WindowClosed, also half way. It does not wait: whoever
    asked holds what others need meanwhile, and has to let go of that first.
    """

    def __init__(
        self,
        upstream: Upstream,
        pace: Pace,
        *,
        now: Now = datetime.now,
        pause: Pause = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream = upstream
        self._pace = pace
        self._now = now
        self._pause = pause
        self._clock = clock
        self._free_at = 0.0  # when the bytes so far would have come at this rate

    @property
    def name(self) -> str:
        return self._upstream.name

    @property
    def connections(self) -> int:
        # With a limit, more connections would only share it.
        return 1 if self._pace.rate else self._upstream.connections

    async def info(self, repo: RepoId, revision: Revision) -> RepoInfo:
        return await self._upstream.info(repo, revision)

    async def tree(self, repo: RepoId, commit: CommitSha) -> AsyncGenerator[TreeEntry]:
        async with aclosing(self._upstream.tree(repo, commit)) as entries:
            async for entry in entries:
                yield entry

    async def fetch(self, file: Located, start: int, stop: int) -> AsyncGenerator[Piece]:
        self._check_open()
        at = start
        async with aclosing(self._upstream.fetch(file, at, stop)) as pieces:
            async for piece in pieces:
                await self._spend(len(piece))
                at += len(piece)
                yield piece
                if at < stop:
                    self._check_open()

    def source(self, file: Located) -> str:
        return self._upstream.source(file)

    def blame(self, file: Located) -> None:
        self._upstream.blame(file)

    async def close(self) -> None:
        await self._upstream.close()

    def _check_open(self) -> None:
        if wait_s := self._pace.closed_s(self._now):
            raise WindowClosed(self.name, wait_s)

    async def _spend(self, size: int) -> None:
        if not self._pace.rate:
            return
        now = self._clock()
        self._free_at = max(self._free_at, now - _BURST_S) + size / self._pace.rate
        if self._free_at > now:
            await self._pause(self._free_at - now)
