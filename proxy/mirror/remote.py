"""Downloads that another process of ours does, as who wants them sees it.

The server has them done by its fetcher, and a worker by the main process. The other one writes into
the same spool and store; what comes over the channel is how far each download is, never its bytes.
If the fetcher dies it is started again, every download goes on from what was synced, and readers
that were shown bytes before are cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import BinaryIO

from proxy.errors import MirrorError, StoreError
from proxy.hub.wire import Json
from proxy.mirror import channel
from proxy.mirror.channel import Channel
from proxy.pins.lock import Entry
from proxy.store.base import BlobStore
from proxy.telemetry import metrics

log = logging.getLogger(__name__)

_DEATHS = 5  # of fetchers within
_DEATHS_S = 60.0  # are too many: then downloads fail instead of starting it again
_RESTART_S = 0.2

Launch = Callable[[], AbstractAsyncContextManager[Channel]]


class RemoteFill:
    """One download that is done elsewhere; a Source for readers here."""

    def __init__(self, entry: Entry, remote: Remote, number: int) -> None:
        self.entry = entry
        self.error: MirrorError | None = None
        self.held = False
        self.attempt = 0
        self.wrong = 0
        self.source = ""
        self.front = 0
        self.changed = asyncio.Event()
        self._remote = remote
        self._number = number
        self.inode = 0
        self._base = 0  # attempts that earlier fetchers made
        self._wrong = 0  # of them, as this fetcher said last
        self._ended = asyncio.Event()
        self.shown = False  # somebody is to be shown bytes as they come
        self._exposed = False  # this attempt; the fetcher has seen to that

    async def run(self) -> None:
        """Have it fetched. The outcome, whatever it is, reaches every reader."""
        self._remote.take(self._number, self)
        try:
            await self._ended.wait()
        finally:
            self._remote.drop(self._number)
            if not self.held and self.error is None:
                self.error = StoreError("the download was stopped")
            self._fire()

    async def expose(self, limit: int) -> None:  # for all: more than `front` is never shown
        attempt = self.attempt
        if not self._exposed:
            self.shown = True
            self._remote.expose(self._number)
        while not self._exposed and attempt == self.attempt and not self._ended.is_set():
            await self.changed.wait()

    def open(self) -> BinaryIO | None:
        if self.held:
            file = self._remote.store.open(self.entry.digest)
            if file is None:
                raise StoreError(f"{self.entry.digest} vanished as soon as it was stored")
            return file
        try:
            path = self._remote.spool / f"{self.entry.digest.hex}.part"
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise StoreError(f"cannot open {path}: {e}") from e
        if os.fstat(fd).st_ino != self.inode:  # a part of another attempt
            os.close(fd)
            return None
        return os.fdopen(fd, "rb", buffering=0)

    # --- what the other end says ------------------------------------------------------------------

    def hear(self, message: Json) -> None:
        self._hear_wrong(_int(message, "wrong"))
        self.source = str(message.get("source", self.source))
        if message.get("held"):
            self.held = True
            self.front = self.entry.size
            self._ended.set()
        elif "error" in message:
            self.error = channel.load_error(message["error"])
            self._ended.set()
        elif "exposed" in message:
            attempt = self._base + _int(message, "attempt")
            self._exposed = self._exposed or attempt == self.attempt
        else:
            attempt = self._base + _int(message, "attempt")
            if attempt != self.attempt:
                self._begin(attempt)
            self.front, self.inode = _int(message, "front"), _int(message, "inode")
        self._fire()

    def lost(self) -> None:
        """The fetcher died: what was not synced may come otherwise the next time."""
        self._base = self.attempt + 1
        self._wrong = 0
        self._begin(self._base)
        self._fire()

    def fail(self, error: MirrorError) -> None:
        self.error = error
        self._ended.set()
        self._fire()

    def _hear_wrong(self, wrong: int) -> None:
        if wrong > self._wrong:
            self.wrong += wrong - self._wrong
            self._wrong = wrong

    def _begin(self, attempt: int) -> None:
        self.attempt = attempt
        self.front = self.inode = 0
        self._exposed = False

    def _fire(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Remote:
    """Who does downloads for us, at the other end of a line."""

    def __init__(self, *, store: BlobStore, spool: Path) -> None:
        self.store = store
        self.spool = spool
        self._fills: dict[int, RemoteFill] = {}
        self._numbers = itertools.count(1)
        self._channel: Channel | None = None

    def fill(self, entry: Entry) -> RemoteFill:
        """A download that begins when it is run."""
        return RemoteFill(entry, self, next(self._numbers))

    def take(self, number: int, fill: RemoteFill) -> None:
        self._fills[number] = fill
        self._order(number, fill)

    def drop(self, number: int) -> None:
        self._fills.pop(number, None)

    def expose(self, number: int) -> None:
        """Have the fetcher note that clients are shown this download, if it has heard of it."""
        fill = self._fills.get(number)
        if fill is not None:
            self._send({"do": "expose", "id": number, "limit": fill.entry.size})

    def _send(self, message: Json) -> None:
        if self._channel is not None:
            self._channel.send(message)

    async def work_over(self, line: Channel) -> None:
        """Have everything that is wanted done over this line, until it ends."""
        self._channel = line
        try:
            for number, fill in self._fills.items():
                self._order(number, fill)
            async for message in line.messages():
                self._hear(message)
        finally:
            self._channel = None

    def lost(self) -> None:
        """Who did them died, and another one goes on with them."""
        for fill in tuple(self._fills.values()):
            fill.lost()

    def fail(self, error: MirrorError) -> None:
        """Nobody will do them."""
        for fill in tuple(self._fills.values()):
            fill.fail(error)

    def _order(self, number: int, fill: RemoteFill) -> None:
        self._send({"do": "fetch", "id": number, "entry": channel.dump_entry(fill.entry)})
        if fill.shown:
            self.expose(number)

    def _hear(self, message: Json) -> None:
        if "limited" in message:
            metrics.UPSTREAM_LIMITED.inc(_int(message, "limited"))
        fill = self._fills.get(_int(message, "id"))
        if fill is not None:
            fill.hear(message)


class Fetcher:
    """The process that downloads, kept alive."""

    def __init__(self, launch: Launch, *, store: BlobStore, spool: Path) -> None:
        self._remote = Remote(store=store, spool=spool)
        self.fill = self._remote.fill
        self._launch = launch
        self._deaths: deque[float] = deque(maxlen=_DEATHS)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The fetcher, for the length of the block."""
        task = asyncio.create_task(self._keep_alive(), name="fetcher")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._remote.fail(StoreError("the server stops"))

    async def _keep_alive(self) -> None:
        while True:
            # A bug is loud, and does not cost every download from then on.
            (error,) = await asyncio.gather(self._live(), return_exceptions=True)
            if isinstance(error, OSError):
                log.error("the fetcher cannot be started: %s", error)
            elif error is not None:
                log.error("the line to the fetcher broke", exc_info=error)
            self._bury()
            await asyncio.sleep(_RESTART_S)

    async def _live(self) -> None:
        async with self._launch() as line:
            await self._remote.work_over(line)

    def _bury(self) -> None:
        now = time.monotonic()
        self._deaths.append(now)
        hopeless = len(self._deaths) == _DEATHS and now - self._deaths[0] < _DEATHS_S
        log.error("the fetcher ended%s", "" if hopeless else "; it is started again")
        if hopeless:
            self._remote.fail(StoreError("the process that downloads ends again and again"))
        else:
            self._remote.lost()


def _int(message: Json, key: str) -> int:
    value = message.get(key)
    return value if isinstance(value, int) else 0
