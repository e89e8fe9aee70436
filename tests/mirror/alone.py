"""A fill without a cache, so that its threads can be held up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from proxy.mirror.fill import Fill, Workshop
from proxy.mirror.misled import Misled
from proxy.mirror.part import Room
from proxy.mirror.transfer import Extra
from proxy.store.local import LocalStore
from tests.mirror.bench import DATA, QUICK, Puppet

P = ParamSpec("P")
T = TypeVar("T")


class Clerk(ThreadPoolExecutor):
    """Threads that a test may stop from beginning anything."""

    def __init__(self) -> None:
        super().__init__(8)
        self.working = threading.Event()
        self.working.set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        def later() -> T:
            assert self.working.wait(10)
            return fn(*args, **kwargs)

        return super().submit(later)


class Alone:
    """A fill without a cache, so that its threads can be held up."""

    def __init__(self, data: Path) -> None:
        self.hub = Puppet()
        self.clerk = Clerk()
        self.entry = self.hub.publish("org/m", "model.bin", DATA)
        self.shop = Workshop(
            store=LocalStore(data),
            upstream=self.hub,
            spool=data,
            misled=Misled(data / "misled"),
            room=Room(0),
            disk=self.clerk,
            hashing=ThreadPoolExecutor(1),
            extra=Extra(8),
            tuning=QUICK,
            gate=asyncio.Semaphore(1),
        )
        self.fill = Fill(self.entry, self.shop)

    def close(self) -> None:
        self.clerk.working.set()
        self.clerk.shutdown()
        self.shop.hashing.shutdown()
