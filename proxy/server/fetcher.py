"""The process that downloads: `proxy.server.fetcher FD`, started by the server.

Hashing and reading sockets take whole cores; in a process of its own, at low priority, they do not
hold up answers. It lives as long as the channel on the descriptor FD, whose first message says
what the server's configuration says about downloads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from yarl import URL

from proxy.assemble import open_cache
from proxy.config import Config, Secret, Timeouts, UpstreamConfig
from proxy.hub.wire import Json
from proxy.mirror import channel, fetching
from proxy.mirror.channel import Channel
from proxy.server import child
from proxy.telemetry import logs

_NICE = 10
_END_S = 15.0  # to write down what came, before it is killed


@asynccontextmanager
async def launch(config: Config) -> AsyncIterator[Channel]:
    """A fetcher for the length of the block. Raises: OSError."""
    ours, theirs = socket.socketpair()
    with theirs:
        # In a session of its own: Ctrl-C is for the server, which ends it in order.
        process = await asyncio.create_subprocess_exec(
            *child.command(__name__, theirs.fileno()),
            pass_fds=(theirs.fileno(),), start_new_session=True,
        )  # fmt: skip
    line = await channel.connect(ours)
    line.send(_dump(config))
    try:
        yield line
    finally:
        await line.close()
        await asyncio.shield(_end(process))


async def _end(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(_END_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _main(fd: int) -> None:
    line = await channel.connect(socket.socket(fileno=fd))
    async with aclosing(line.messages()) as messages:
        config = _load(await anext(messages))
    async with open_cache(config) as cache:
        counting = asyncio.create_task(fetching.count_limited(line))
        await fetching.serve_channel(line, cache)
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)
    await line.close()


def _dump(config: Config) -> Json:
    return {
        "data": str(config.data),
        "keep_free": config.keep_free,
        "connect": config.timeouts.connect,
        "read": config.timeouts.read,
        "log": config.log,
        "level": logging.getLogger().level,
        "upstreams": [
            {
                "url": str(one.url),
                "token": one.token.reveal(),
                "redirect_hosts": list(one.redirect_hosts),
                "connections": one.connections,
            }
            for one in config.upstreams
        ],
    }


def _load(raw: Json) -> Config:
    logs.setup(str(raw["log"]), int(str(raw["level"])), logger="fetcher")
    upstreams = raw["upstreams"]
    assert isinstance(upstreams, list)
    return Config(
        data=Path(str(raw["data"])),
        keep_free=int(str(raw["keep_free"])),
        timeouts=Timeouts(float(str(raw["connect"])), float(str(raw["read"]))),
        log=str(raw["log"]),
        upstreams=tuple(
            UpstreamConfig(
                URL(one["url"]),
                Secret(one["token"]),
                tuple(one["redirect_hosts"]),
                one["connections"],
            )
            for one in upstreams
        ),
    )


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    asyncio.run(_main(int(sys.argv[1])))
