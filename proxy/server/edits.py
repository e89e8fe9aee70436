"""Edits of the allowlist and the lock: noticed, and put in force one after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import watchfiles
from watchfiles import Change

from proxy.config import Config
from proxy.server.site import Site
from proxy.telemetry import metrics

log = logging.getLogger(__name__)

_DEBOUNCE_MS = 300
_IDLE_MS = 5000  # after which a watch without a change says so
_AGAIN_S = 1.0  # after the folder went: what replaces it is there soon
_RETRY_S = 30.0  # while it cannot be watched


class Edits:
    """That something may have changed; however often it is noted, one reload is due after it."""

    def __init__(self, config: Config) -> None:
        """From now on: what changes before it is watched is noted, too."""
        self._due = asyncio.Event()
        self._config = config
        self._began = _stamps(config)

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

    async def watch(self) -> None:
        """Note what changes on disk, for ever, and again when watching has failed."""
        config, began = self._config, self._began
        unsure = True  # whether the files are those of the beginning
        missed = told = False  # edits that nobody saw, perhaps; that nobody watches
        while True:
            rest_s = _AGAIN_S
            try:
                async with aclosing(_changes(config, idle=missed or unsure)) as changes:
                    async for changed in changes:
                        if told:
                            log.info("edits are followed again")
                        if changed or missed or (unsure and _stamps(config) != began):
                            self.note()
                        unsure = missed = told = False
            except (OSError, RuntimeError, ExceptionGroup) as e:  # whatever watchfiles raises
                if not told:
                    log.error(
                        "edits are followed only on SIGHUP until %s can be watched again: %r",
                        config.allowlist.parent,
                        e,
                    )
                told, rest_s = True, _RETRY_S
            missed = True
            await asyncio.sleep(rest_s)


def _stamps(config: Config) -> list[tuple[int, int, int] | None]:
    """What tells one state of our files from another."""
    found: list[tuple[int, int, int] | None] = []
    for file in (config.allowlist, config.lock):
        try:
            status = file.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return found


async def _changes(config: Config, *, idle: bool) -> AsyncGenerator[bool]:
    """True when a file of ours changed, until the folder itself goes; if `idle`, False in between.

    Raises: OSError, RuntimeError, and groups of them.
    """
    folder = config.allowlist.parent.absolute()
    # A mounted Kubernetes ConfigMap changes by its link `..data`.
    names = {config.allowlist.name, config.lock.name, "..data"}
    gone = (Change.deleted, str(folder))
    watch = watchfiles.awatch(
        folder,
        watch_filter=lambda change, path: Path(path).name in names or (change, path) == gone,
        debounce=_DEBOUNCE_MS,
        step=50,
        rust_timeout=_IDLE_MS,
        yield_on_timeout=idle,
        recursive=False,
    )
    async with aclosing(watch):
        async for changes in watch:
            if gone in changes:
                return
            yield bool(changes)
