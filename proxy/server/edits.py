"""Edits of the allowlist and the lock: noticed, and put in force one after the other."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import watchfiles

from proxy.config import Config
from proxy.server.site import Site
from proxy.telemetry import metrics

log = logging.getLogger(__name__)

_DEBOUNCE_MS = 300


class Edits:
    """That something may have changed; however often it is noted, one reload is due after it."""

    def __init__(self) -> None:
        self._due = asyncio.Event()

    def note(self) -> None:
        """The files may be others than those in force."""
        self._due.set()

    async def follow(self, site: Site) -> None:
        """Reload what is noted, for ever, one reload at a time: a lock takes seconds to read."""
        while True:
            await self._due.wait()
            self._due.clear()
            reload = asyncio.to_thread(site.mirror.reloader.reload)
            (done,) = await asyncio.gather(reload, return_exceptions=True)
            if isinstance(done, Exception):  # of a broken edit, the reloader tells itself
                metrics.CATALOG_STALE.set(1)
                log.error("cannot reload; what was in force stays in force", exc_info=done)
            site.autolock.wake()

    async def watch(self, config: Config) -> None:
        """Note what changes on disk, for ever."""
        # A mounted Kubernetes ConfigMap changes by its link `..data`.
        names = {config.allowlist.name, config.lock.name, "..data"}
        async for _ in watchfiles.awatch(
            config.allowlist.parent,
            watch_filter=lambda _, path: Path(path).name in names,
            debounce=_DEBOUNCE_MS,
            step=50,
            recursive=False,
        ):
            self.note()
