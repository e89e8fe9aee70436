"""What a server does beside answering: scrubbing, staying within `max_size`, warming."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from proxy.errors import MirrorError
from proxy.hub.names import Digest, Pair
from proxy.mirror.mirror import Mirror
from proxy.tasks import evict, scrub, warm
from proxy.telemetry import metrics

log = logging.getLogger(__name__)

_EVICT_EVERY_S = 30.0
_LOOK_S = 5.0  # how often we look for pairs to warm
_RETRY_S = 600.0  # after a pair could not be warmed whole
_WARM_JOBS = 2  # files at a time: clients come first


class Upkeep:
    """Background care of the store; `last` is how far the scrub is, for /-/status."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self.last: scrub.Checked | None = None
        self.warming: Pair | None = None  # the pair marked `warm: true` that is being fetched
        self._warmed: dict[Pair, Digest] = {}  # which files of it were all held once
        self._cold: dict[Pair, float] = {}  # when it could not be warmed, on our clock

    async def keep_sound(self) -> None:
        """Hash everything once per `scrub` period, for ever."""
        cycle_s = self._mirror.config.scrub
        if not cycle_s:
            return
        async with aclosing(scrub.scrub(self._mirror, cycle_s=cycle_s)) as events:
            async for event in events:
                self.last = event
                if not event.right:
                    healed = "fetched again" if event.healed else "not fetched again yet"
                    log.error("scrub: %s had gone bad; %s", event.digest, healed)

    async def keep_small(self) -> None:
        """Keep the store within `max_size`, for ever."""
        max_size = self._mirror.config.max_size
        if not max_size:
            return
        while True:
            try:
                async with aclosing(evict.evict(self._mirror, max_size=max_size)) as events:
                    async for event in events:
                        self._note(event)
            except MirrorError as e:
                log.error("evict: %s", e)
            await asyncio.sleep(_EVICT_EVERY_S)

    async def keep_warm(
        self,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Fetch pairs marked `warm: true` once they are locked, and again when they move."""
        while True:
            for snapshot in self._mirror.catalog.snapshots():
                pair, print_ = snapshot.pair, snapshot.fingerprint
                rested = clock() - self._cold.get(pair, -_RETRY_S) >= _RETRY_S
                if snapshot.allowed.warm and self._warmed.get(pair) != print_ and rested:
                    self.warming = pair
                    whole = await self._warm(pair)
                    self.warming = None
                    if whole:
                        self._warmed[pair] = print_
                    else:
                        self._cold[pair] = clock()
            await pause(_LOOK_S)

    async def _warm(self, pair: Pair) -> bool:
        """Whether every file of the pair is held now."""
        try:
            async with aclosing(warm.warm(self._mirror, [pair], jobs=_WARM_JOBS)) as events:
                total = 0
                async for event in events:
                    if isinstance(event, warm.Planned):
                        total = event.bytes
                        metrics.WARM_MISSING.set(total - event.held_bytes)
                    elif isinstance(event, warm.Progress | warm.Fetched):
                        metrics.WARM_MISSING.set(total - event.done_bytes)
                    elif isinstance(event, warm.Finished):
                        log.info(
                            "warmed %s: %d files fetched, %d failed",
                            pair, event.fetched_files, event.failed,
                        )  # fmt: skip
                        return event.failed == 0
        except MirrorError as e:
            log.error("cannot warm %s: %s", pair, e)
        return False

    def _note(self, event: evict.Evicted | evict.Finished) -> None:
        if isinstance(event, evict.Evicted):
            log.info("evicted %s, %d bytes", event.digest, event.size)
        elif event.over:
            log.warning("blobs that must be kept exceed max_size by %d bytes", event.over)
