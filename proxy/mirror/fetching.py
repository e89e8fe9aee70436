"""The side that downloads: does what the other end asks for, and says how far it is.

The fetcher does so for the server, and the main process for its workers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from proxy.errors import MirrorError
from proxy.hub.wire import Json
from proxy.mirror import channel
from proxy.mirror.cache import BlobCache
from proxy.mirror.channel import Channel
from proxy.mirror.follower import Source
from proxy.telemetry import metrics

log = logging.getLogger(__name__)

_COUNT_S = 5.0
_AT_ONCE = 1 << 20  # bytes of a file whose progress is told as it happens;
_GATHER_S = 0.003  # later so often at most


async def serve_channel(line: Channel, cache: BlobCache) -> None:
    """Fetch what comes over the line, until the other end is gone.

    What runs then goes on: downloads are the cache's own. A bug ends it: the other end would never
    hear of the download that met it.
    """
    running: dict[int, Source] = {}
    tasks: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as group:
        async for message in line.messages():
            number = message["id"]
            assert isinstance(number, int)
            if message["do"] == "fetch":
                try:  # at once: the next message may be about it
                    running[number] = cache.start(channel.load_entry(message["entry"]))
                except MirrorError as e:  # it failed a moment ago, and is not tried again yet
                    line.send({"id": number, "error": channel.dump_error(e)})
                    continue
                work = _fetch(line, number, running)
            elif number in running:
                work = _expose(line, number, running[number])
            else:
                continue  # it ended meanwhile, and the other end hears of that
            task = group.create_task(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        for task in tasks:
            task.cancel()


async def _fetch(line: Channel, number: int, running: dict[int, Source]) -> None:
    fill = running[number]
    try:
        while not fill.held and fill.error is None:
            changed = fill.changed
            line.send(_state(number, fill))
            await line.drain()
            await changed.wait()
            if fill.front > _AT_ONCE:
                await asyncio.sleep(_GATHER_S)
        if fill.error is not None:
            end: Json = {"error": channel.dump_error(fill.error)}
        else:
            end = {"held": True}
        line.send({"id": number, "wrong": fill.wrong, "source": fill.source, **end})
    finally:
        del running[number]


async def _expose(line: Channel, number: int, fill: Source) -> None:
    attempt = fill.attempt
    try:
        await fill.expose(fill.entry.size)
    except MirrorError as e:  # so nothing is shown before all of it is right
        log.warning("%s", e)
        return
    # If it has ended meanwhile, or began anew, nothing was noted; the other end hears of that. And
    # what it has heard of a part that is gone must not be shown.
    if fill.attempt == attempt and fill.error is None:
        line.send(_state(number, fill))
        line.send({"id": number, "exposed": True, "attempt": attempt})


def _state(number: int, fill: Source) -> Json:
    return {
        "id": number,
        "front": fill.front,
        "attempt": fill.attempt,
        "inode": fill.inode,
        "wrong": fill.wrong,
    }


async def count_limited(
    line: Channel, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Tell how often upstreams said 429: the metrics that anybody reads are the server's.
    For ever."""
    told = 0.0
    while True:
        limited = metrics.REGISTRY.get_sample_value("hubpin_upstream_limited_total") or 0.0
        if limited > told:
            line.send({"limited": int(limited - told)})
            told = limited
        await pause(_COUNT_S)
