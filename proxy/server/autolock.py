"""Locks pairs that appear in the allowlist while the server runs. It never re-locks."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing

from proxy.errors import (
    Busy,
    ConfigError,
    MirrorError,
    RevisionNotPinned,
    UpstreamInvalid,
    UpstreamUnavailable,
)
from proxy.hub.names import Pair
from proxy.mirror.mirror import Mirror
from proxy.tasks import lock

log = logging.getLogger(__name__)

_RETRY_S = 30.0  # after a failure; sooner if a client asks
_RETRY_ASKED_S = 3.0


class AutoLock:
    """One lock task at a time, woken by new pairs, by clients who wait, and by time."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._enabled = mirror.config.auto_lock and not mirror.config.offline
        self._wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self._failed: dict[Pair, tuple[MirrorError, float]] = {}

    @property
    def failures(self) -> dict[Pair, MirrorError]:
        """Why pairs are not locked."""
        return {pair: error for pair, (error, _) in self._failed.items()}

    def wake(self) -> None:
        """The allowlist may have changed."""
        self._wanted.set()

    async def run(self) -> None:
        """Lock what is not locked, for ever."""
        if not self._enabled:
            return
        while True:
            self._wanted.clear()
            if any(True for _ in self._mirror.catalog.unlocked()):
                await self._lock_due()
                await asyncio.to_thread(self._mirror.reloader.reload)
                self._fire()
            try:
                async with asyncio.timeout(_RETRY_S if self._failed else None):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def settle(self, pair: Pair, patience_s: float) -> None:
        """Returns when the pair is locked.

        Raises: RevisionNotPinned (we do not lock by ourselves), Busy (not done in time), and
        whatever made locking fail.
        """
        if not self._enabled:
            raise RevisionNotPinned(pair.repo, pair.revision)
        if pair not in self._failed or self._is_due(pair, _RETRY_ASKED_S):
            self._failed.pop(pair, None)
            self.wake()
        try:
            async with asyncio.timeout(patience_s):
                while pair not in self._mirror.catalog.lock.pins:
                    if pair in self._failed:
                        error = _later(pair, self._failed[pair][0])
                        raise error.with_traceback(None)  # else it grows with every client
                    await self._changed.wait()
        except TimeoutError:
            raise Busy(f"{pair} is being locked", 5) from None

    def _is_due(self, pair: Pair, rest_s: float) -> bool:
        return time.monotonic() - self._failed[pair][1] >= rest_s

    async def _lock_due(self) -> None:
        due = [
            one.pair
            for one in self._mirror.catalog.unlocked()
            if one.pair not in self._failed or self._is_due(one.pair, _RETRY_S)
        ]
        try:
            async with aclosing(lock.lock(self._mirror, only=due)) as events:
                async for event in events:
                    await self._note(event)
        except MirrorError as e:
            for pair in due:
                self._failed[pair] = (e, time.monotonic())
            log.error("cannot lock: %s", e)

    async def _note(self, event: lock.Event) -> None:
        match event:
            case lock.Locked():
                self._failed.pop(event.pair, None)
                log.info("locked %s at %s", event.pair, event.pin.commit)
                await asyncio.to_thread(self._mirror.reloader.reload)
                self._fire()
            case lock.Failed():
                self._failed[event.pair] = (event.error, time.monotonic())
                log.error("cannot lock %s: %s", event.pair, event.error)
                self._fire()
            case lock.Warned():
                log.warning("%s: %s", event.pair, event.message)

    def _fire(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _later(pair: Pair, error: MirrorError) -> MirrorError:
    """An upstream that is down may be up when the client asks again; one that talks nonsense is
    somebody's to look at."""
    if isinstance(error, UpstreamInvalid):
        return error
    if isinstance(error, ConfigError):  # where our files lie is nobody else's business
        return RevisionNotPinned(pair.repo, pair.revision, error.problem)
    if isinstance(error, UpstreamUnavailable) and error.retry_after_s is None:
        return Busy(f"{pair} is allowed but cannot be locked now ({error})", 10)
    return error
