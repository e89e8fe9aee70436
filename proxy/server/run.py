"""The server's life: listen, follow edits, stop without breaking what is under way."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from proxy.assemble import open_mirror
from proxy.config import Config, Listen
from proxy.mirror.remote import Fetcher
from proxy.server import listening as sockets
from proxy.server.autolock import AutoLock
from proxy.server.background import background
from proxy.server.edits import Edits
from proxy.server.fetcher import launch
from proxy.server.listening import answering
from proxy.server.sender import Sender
from proxy.server.site import Site
from proxy.server.upkeep import Upkeep
from proxy.server.workers import Workers

log = logging.getLogger(__name__)


async def serve(config: Config, *, listening: Callable[[Listen], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; `listening` is told the address once requests are welcome.

    Raises: ConfigError, InstanceRunning, StoreError, MirrorError (the address is taken).
    """
    async with running(config) as (site, address):
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_complain)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if listening is not None:
            listening(address)
        await stop.wait()
        log.info("stopping: no new connections; answers under way have %d s", site.grace_s)
        site.stopping = True
        for number in (signal.SIGTERM, signal.SIGINT):  # asked twice: at once
            loop.remove_signal_handler(number)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[tuple[Site, Listen]]:
    """A server for the length of the block, and the address it listens on."""
    edits = Edits(config)  # from before the first look at the files: none may be missed
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, edits.note)
    async with AsyncExitStack() as stack:
        workers = None
        if config.workers > 1:
            workers = Workers(config)
            stack.callback(workers.close)
        mirror = await stack.enter_async_context(open_mirror(config, numbers=workers))
        stack.enter_context(mirror.serving())
        mirror.cache.recover()
        mirror.reloader.announce()
        if config.fetcher and not config.offline:
            fetcher = Fetcher(lambda: launch(config), store=mirror.store, spool=mirror.cache.spool)
            mirror.cache.make_fill = fetcher.fill
            await stack.enter_async_context(fetcher.running())
        autolock = AutoLock(mirror)
        upkeep = Upkeep(mirror)
        sender = Sender()
        stack.callback(sender.close)
        site = Site(mirror, autolock, upkeep, sender, others=workers)
        stack.push_async_callback(site.packs.close)
        for work in (
            autolock.run(),
            mirror.recency.keep_writing(),
            upkeep.keep_sound(),
            upkeep.keep_small(),
            upkeep.keep_warm(),
            site.drift.run(),
            edits.follow(site),
            edits.watch(),
        ):
            await stack.enter_async_context(background(work))
        taken = []
        if workers is not None:
            taken = await asyncio.to_thread(sockets.take, config.listen)
            for sock in taken:
                stack.callback(sock.close)
            places = sockets.places(taken)
            await stack.enter_async_context(workers.running(site, places))
        address = await stack.enter_async_context(answering(site, config.listen, taken))
        log.info("listening on %s", address)
        yield site, address


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Without descriptors left, accepting fails every second: a line each is enough."""
    error = context.get("exception")
    if isinstance(error, OSError):
        log.error("%s: %s", context.get("message"), error)
    else:
        loop.default_exception_handler(context)
