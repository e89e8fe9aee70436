"""The workers, as the main process sees them: kept alive, of one mind, and added up."""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio.subprocess import Process
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from proxy.config import Config
from proxy.errors import MirrorError
from proxy.hub.names import Pair
from proxy.hub.wire import Json
from proxy.mirror import fetching
from proxy.mirror.talk import Talk
from proxy.pins.versions import Shared, Texts
from proxy.server import health
from proxy.server.listening import Place
from proxy.server.site import Site
from proxy.server.worker import dump_settings, launch, load_tally
from proxy.telemetry import metrics
from proxy.telemetry.metrics import Tally

log = logging.getLogger(__name__)

_START_S = 60.0  # for a worker to import what it needs, on a machine that is busy
_FIRST_S = 15.0  # how long the first ones are waited for; the port is served without them then
_LOAD_S = 5.0  # for a worker to hold a new catalog, and
_LOAD_RATE = 1e6  # so many bytes of the lock a second more
_COUNT_S = 1.0  # to say what it counted
_END_S = 5.0  # beyond what answers under way have
_DEATHS = 5  # of one worker, within
_DEATHS_S = 60.0  # are too many: then it is started again every
_SLOW_S = 15.0
_RESTART_S = 0.2


@dataclass(eq=False, slots=True)
class _Worker:
    process: Process
    talk: Talk = field(init=False)
    tally: Tally = field(default_factory=dict)  # as it said last
    answers: bool = False

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()

    def fetches_ended(self, task: asyncio.Task[None]) -> None:
        """Without them it would wait for ever for what it does not hold."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("worker %d cannot be served and is ended", self.process.pid, exc_info=error)
            self.kill()


class Workers:
    """All workers of a server; and the number of the catalog that is in force in all of them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._shared = Shared.make()
        # `put` is called in a thread of the loop's pool, and other reloads may wait in all the rest
        # of them: what it waits for must not need one.
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="catalog")
        self._sizes = (0, -1)  # of the texts in the shared memory
        self._turn = asyncio.Lock()  # a worker that starts and a new catalog: one after the other
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alive: list[_Worker] = []
        self._loaded: list[_Worker] = []  # of them, those that hold the catalog in force
        self._gone: Tally = {}  # what those that ended had counted
        self._stopping = asyncio.Event()

    def close(self) -> None:
        self._writing.shutdown()
        self._shared.close()

    # --- one catalog at a time (Numbers) ----------------------------------------------------------

    @property
    def current(self) -> int:
        return self._shared.number

    def put(self, number: int, texts: Texts) -> None:
        """Every worker holds it before it is in force; one that does not in time is ended."""
        if self._loop is None:
            self._sizes = self._shared.write(texts)
            self._shared.number = number
        else:
            asyncio.run_coroutine_threadsafe(self._spread(number, texts), self._loop).result()

    async def _spread(self, number: int, texts: Texts) -> None:
        async with self._turn:
            loop = asyncio.get_running_loop()
            self._sizes = await loop.run_in_executor(self._writing, self._shared.write, texts)
            await asyncio.gather(*(self._load(one, number) for one in tuple(self._loaded)))
            self._shared.number = number  # from here on, everywhere
            for worker in self._loaded:
                worker.talk.tell("forget")

    async def _load(self, worker: _Worker, number: int) -> bool:
        """Have it hold the newest catalog; one that fails to is ended."""
        patience_s = _LOAD_S + self._sizes[1] / _LOAD_RATE
        try:
            await worker.talk.ask("load", patience_s=patience_s, number=number, sizes=self._sizes)
        except MirrorError as e:
            log.error("worker %d does not follow and is ended: %s", worker.process.pid, e)
            worker.kill()
            if worker in self._loaded:
                self._loaded.remove(worker)
            return False
        return True

    # --- life -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self, site: Site, places: Sequence[Place]) -> AsyncIterator[None]:
        """They answer at these places for the length of the block, and those that end come back."""
        self._loop = asyncio.get_running_loop()
        firsts = [asyncio.Event() for _ in range(self._config.workers - 1)]
        keepers = [
            asyncio.create_task(self._keep_alive(site, places, first), name="worker")
            for first in firsts
        ]
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_S):
                    for first in firsts:
                        await first.wait()
            yield
        finally:
            self.stop()
            await asyncio.wait(keepers, timeout=site.grace_s + _END_S)
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            self._loop = None

    def stop(self) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        for worker in self._alive:
            if worker.answers:
                worker.talk.tell("stop")
            else:
                worker.kill()

    async def _keep_alive(self, site: Site, places: Sequence[Place], first: asyncio.Event) -> None:
        deaths: deque[float] = deque(maxlen=_DEATHS)
        while not self._stopping.is_set():
            # A bug is loud, and does not cost the worker for good.
            live = self._live(site, places, first)
            (error,) = await asyncio.gather(live, return_exceptions=True)
            if isinstance(error, OSError):
                log.error("a worker cannot be started: %s", error)
            elif error is not None:
                log.error("the line to a worker broke", exc_info=error)
            first.set()
            if self._stopping.is_set():
                return
            now = time.monotonic()
            deaths.append(now)
            hopeless = len(deaths) == _DEATHS and now - deaths[0] < _DEATHS_S
            pause_s = _SLOW_S if hopeless else _RESTART_S
            log.error(
                "a worker ended%s; it is started again in %g s",
                f" {_DEATHS} times within {_DEATHS_S:g} s" if hopeless else "",
                pause_s,
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()

    async def _live(self, site: Site, places: Sequence[Place], first: asyncio.Event) -> None:
        async with launch(self._shared) as (process, line, fills):
            worker = _Worker(process)
            worker.talk = Talk(line, lambda message: self._answer(site, worker, message))
            self._alive.append(worker)
            fetches = asyncio.create_task(fetching.serve_channel(fills, site.mirror.cache))
            fetches.add_done_callback(worker.fetches_ended)
            tasks = [fetches, asyncio.create_task(self._greet(worker, places, first))]
            try:
                await worker.talk.listen()
            finally:
                self._alive.remove(worker)
                if worker in self._loaded:
                    self._loaded.remove(worker)
                self._gone = metrics.counted((self._gone, worker.tally))
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _greet(self, worker: _Worker, places: Sequence[Place], first: asyncio.Event) -> None:
        ask = worker.talk.ask
        try:
            await ask("settings", patience_s=_START_S, **dump_settings(self._config, places))
            async with self._turn:
                if not await self._load(worker, self.current):
                    return
                self._loaded.append(worker)
            await ask("listen", patience_s=_LOAD_S)
        except MirrorError as e:
            log.error("worker %d does not start and is ended: %s", worker.process.pid, e)
            worker.kill()
            return
        worker.answers = True
        log.info("worker %d answers", worker.process.pid)
        first.set()

    # --- what they ask, and what they count -------------------------------------------------------

    async def _answer(self, site: Site, worker: _Worker, message: Json) -> Json:
        match message["do"]:
            case "settle":
                await site.autolock.settle(
                    Pair(str(message["pair"])), float(str(message["settle_s"]))
                )
            case "status":
                return {"body": (await health.status_text(site)).decode()}
            case "metrics":
                return {"body": (await health.metrics_text(site)).decode()}
            case "tally":
                worker.tally = load_tally(message["rows"])
        return {}

    @property
    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self._alive if worker.answers]

    async def tallies(self) -> list[Tally]:
        await asyncio.gather(*(self._count(one) for one in self._alive if one.answers))
        return [*(worker.tally for worker in self._alive), self._gone]

    async def _count(self, worker: _Worker) -> None:
        with suppress(MirrorError):  # what it said last stands for it
            said = await worker.talk.ask("tally", patience_s=_COUNT_S)
            worker.tally = load_tally(said["rows"])
