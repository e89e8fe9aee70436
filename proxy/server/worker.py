"""A process that answers beside the main one: `proxy.server.worker FD FD FD`.

The main process starts it. The descriptors are a line for questions (`mirror/talk.py`), a line for
downloads (`mirror/channel.py`) and the memory in which both see which catalog is in force
(`pins/versions.py`). It lives as long as the lines, holds no token and asks no upstream.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import asdict, replace

import msgspec

from proxy.assemble import open_share
from proxy.config import Config
from proxy.errors import StoreError
from proxy.hub.names import Pair
from proxy.hub.wire import Json
from proxy.mirror import channel
from proxy.mirror.channel import Channel
from proxy.mirror.remote import Remote
from proxy.mirror.talk import Talk
from proxy.pins.versions import Shared, Told
from proxy.server import child
from proxy.server.autolock import AutoLock
from proxy.server.background import background
from proxy.server.listening import Place, answering, join
from proxy.server.sender import Sender
from proxy.server.site import Site
from proxy.server.upkeep import Upkeep
from proxy.telemetry import logs, metrics
from proxy.telemetry.metrics import Tally

log = logging.getLogger(__name__)

_END_S = 3.0  # to end after its lines, before it is killed
_ANSWER_S = 30.0  # for the main process to say what it knows
_COUNT_S = 0.5  # how often it tells what it counted: so much of it may be lost if it is killed


# --- in the main process --------------------------------------------------------------------------


@asynccontextmanager
async def launch(shared: Shared) -> AsyncIterator[tuple[Process, Channel, Channel]]:
    """A worker for the length of the block, and its lines: questions, downloads.

    Raises: OSError.
    """
    with ExitStack() as theirs:
        near, far = zip(*(socket.socketpair() for _ in range(2)), strict=True)
        fds = tuple(theirs.enter_context(one).fileno() for one in far)
        try:
            # In a session of its own: Ctrl-C is for the main process, which ends it in order.
            process = await asyncio.create_subprocess_exec(
                *child.command("proxy.server.worker", *fds, shared.fd),
                pass_fds=(*fds, shared.fd), start_new_session=True,
            )  # fmt: skip
        except BaseException:
            for one in near:
                one.close()
            raise
    line, fills = [await channel.connect(one) for one in near]
    try:
        yield process, line, fills
    finally:
        await line.close()
        await fills.close()
        await asyncio.shield(_end(process))


async def _end(process: Process) -> None:
    try:
        async with asyncio.timeout(_END_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def dump_settings(config: Config, places: Sequence[Place]) -> Json:
    """What a worker has to know; no upstream, and so no token."""
    plain = msgspec.to_builtins(replace(config, upstreams=()), enc_hook=str)
    return {
        "config": plain,
        "level": logging.getLogger().level,
        "places": [asdict(place) for place in places],
    }


def load_tally(rows: object) -> Tally:
    """What `tally` of a worker said. Raises: msgspec.ValidationError."""
    plain = msgspec.convert(rows, list[tuple[str, tuple[tuple[str, str], ...], float]])
    return {(name, labels): value for name, labels, value in plain}


# --- in the worker --------------------------------------------------------------------------------


class Asked:
    """The main process, asked over the line."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    async def settle(self, pair: Pair, patience_s: float) -> None:
        await self._talk.ask(
            "settle", patience_s=patience_s + _ANSWER_S, pair=pair, settle_s=patience_s
        )

    async def status(self) -> bytes:
        said = await self._talk.ask("status", patience_s=_ANSWER_S)
        return str(said["body"]).encode()

    async def metrics(self) -> bytes:
        said = await self._talk.ask("metrics", patience_s=_ANSWER_S)
        return str(said["body"]).encode()


class Worker:
    """Answers until it is told to stop, or until the main process is gone."""

    def __init__(self, line: Channel, fills: Channel, shared: Shared) -> None:
        self._line = line
        self._fills = fills
        self._shared = shared
        self._talk = Talk(line, self._answer)
        self._settings: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._told: Told | None = None
        self._site: Site | None = None
        self._may_listen = asyncio.Event()
        self._listens = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        hearing = asyncio.create_task(self._talk.listen())
        work = asyncio.create_task(self._work())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        await asyncio.wait((hearing, work), return_when=asyncio.FIRST_COMPLETED)
        if hearing.done():  # the main process is gone: the port has to be free at once
            if self._site is not None:
                self._site.grace_s = 0.01  # aiohttp takes 0 for no limit
            work.cancel()
        await asyncio.gather(work, return_exceptions=not work.done())
        self._tell_tally()
        await self._line.close()
        await self._fills.close()
        await hearing

    async def _work(self) -> None:
        said = await self._settings
        config = _load_config(said)
        logs.setup(config.log, int(str(said["level"])), logger=f"worker {os.getpid()}")
        told = self._told = Told(self._shared, config.allowlist, config.lock)
        async with AsyncExitStack() as stack:
            mirror = await stack.enter_async_context(open_share(config, told))
            remote = Remote(store=mirror.store, spool=mirror.spool)
            mirror.cache.make_fill = remote.fill
            mirror.cache.report = lambda fill, seconds: None  # the main process does
            sender = Sender()
            stack.callback(sender.close)
            site = Site(mirror, AutoLock(mirror), Upkeep(mirror), sender, owner=Asked(self._talk))
            self._site = site
            stack.push_async_callback(site.packs.close)
            for work in (
                self._have_fetched(remote),
                mirror.recency.keep_writing(),
                self._keep_telling(),
            ):
                await stack.enter_async_context(background(work))
            await self._may_listen.wait()
            sockets = join(msgspec.convert(said["places"], list[Place]))
            await stack.enter_async_context(answering(site, config.listen, sockets))
            self._listens.set()
            await self._stop.wait()
            site.stopping = True

    async def _have_fetched(self, remote: Remote) -> None:
        try:
            await remote.work_over(self._fills)
        except Exception:  # nobody brings what we do not hold; another worker takes our place
            remote.fail(StoreError("the worker stops"))
            self._stop.set()
            raise

    async def _answer(self, message: Json) -> Json:
        match message["do"]:
            case "settings":
                self._settings.set_result(message)
            case "load":
                assert self._told is not None
                number, sizes = msgspec.convert(
                    (message["number"], message["sizes"]), tuple[int, tuple[int, int]]
                )
                await asyncio.to_thread(self._told.load, number, sizes)
            case "forget":
                assert self._told is not None
                self._told.forget()
            case "listen":
                self._may_listen.set()
                await self._listens.wait()
            case "tally":
                return {"rows": _rows(metrics.tally())}
            case "stop":
                self._stop.set()
        return {}

    async def _keep_telling(self) -> None:
        told: Tally = {}
        while True:
            now = metrics.tally()
            if now != told:
                self._tell_tally()
                told = now
            await asyncio.sleep(_COUNT_S)

    def _tell_tally(self) -> None:
        self._talk.tell("tally", rows=_rows(metrics.tally()))


def _rows(tally: Tally) -> list[tuple[str, tuple[tuple[str, str], ...], float]]:
    return [(name, labels, value) for (name, labels), value in tally.items()]


def _load_config(said: Json) -> Config:
    return msgspec.convert(said["config"], Config, dec_hook=lambda kind, text: kind(text))


async def _main(talk: int, fills: int, shared: int) -> None:
    near = await channel.connect(socket.socket(fileno=talk))
    far = await channel.connect(socket.socket(fileno=fills))
    await Worker(near, far, Shared(shared)).run()


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGHUP):  # the main process hears them
        signal.signal(number, signal.SIG_IGN)
    asyncio.run(_main(*map(int, sys.argv[1:])))
