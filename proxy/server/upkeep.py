"""What a server does beside answering: scrubbing, and staying within `max_size`."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from proxy.errors import MirrorError
from proxy.mirror.mirror import Mirror
from proxy.tasks import evict, scrub

log = logging.getLogger(__name__)

_EVICT_EVERY_S = 30.0


class Upkeep:
    """Background care of the store; `last` is how far the scrub is, for /-/status."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self.last: scrub.Checked | None = None

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

    def _note(self, event: evict.Evicted | evict.Finished) -> None:
        if isinstance(event, evict.Evicted):
            log.info("evicted %s, %d bytes", event.digest, event.size)
        elif event.over:
            log.warning("blobs that must be kept exceed max_size by %d bytes", event.over)
