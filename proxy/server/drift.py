"""Asks now and then what moved upstream since it was locked. It tells, and moves nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from proxy.errors import MirrorError
from proxy.mirror.mirror import Mirror
from proxy.tasks import check
from proxy.tasks.check import Drifted, Unknown

log = logging.getLogger(__name__)

_FIRST_S = 60.0  # after the start: clients come first


class DriftWatch:
    """What the last look upstream found, for /-/status and metrics."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._drifted: tuple[Drifted, ...] = ()
        self.unknown: tuple[Unknown, ...] = ()
        self.checked: float | None = None  # Unix seconds; None: not yet

    @property
    def drifted(self) -> list[Drifted]:
        """Pairs that moved upstream, but for those that were locked anew since we looked."""
        pins = self._mirror.catalog.lock.pins
        return [
            one for one in self._drifted if one.pair in pins and pins[one.pair].commit == one.locked
        ]

    async def run(
        self,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Look once per `drift_check` period, for ever."""
        config = self._mirror.config
        if not config.drift_check or config.offline:
            return
        await pause(min(_FIRST_S, config.drift_check))
        while True:
            try:
                await self._look()
                self.checked = clock()
            except MirrorError as e:
                log.error("cannot look for drift: %s", e)
            await pause(config.drift_check)

    async def _look(self) -> None:
        """Raises: ConfigError."""
        known = set(self._drifted)
        drifted, unknown = [], []
        async with aclosing(check.check(self._mirror)) as events:
            async for event in events:
                if isinstance(event, Drifted):
                    drifted.append(event)
                    if event not in known:
                        log.warning("drift: %s", _sentence(event))
                elif isinstance(event, Unknown):
                    unknown.append(event)
                    log.info("drift: nobody could be asked about %s: %s", event.pair, event.error)
        self._drifted, self.unknown = tuple(drifted), tuple(unknown)
        log.info("drift: %d pairs moved upstream, %d unknown", len(drifted), len(unknown))


def _sentence(event: Drifted) -> str:
    where = f"is at {event.upstream_commit}" if event.upstream_commit else "is not there any more"
    return f"{event.pair} {where} on {event.upstream}; it is served at {event.locked} as before"
