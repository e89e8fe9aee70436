"""Bytes that come late, for a place that was hashed already, change nothing."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path

from proxy.errors import RangeIgnored
from proxy.mirror.cache import BlobCache
from proxy.mirror.transfer import Tuning
from proxy.store.local import LocalStore
from proxy.store.recency import Recency
from proxy.upstream.base import Located
from tests.fakes.content import Content, Twisted
from tests.fakes.memory import FakeHub

KIB = 1 << 10
SEGMENT = 256 * KIB
BLOB = Content("late", 8 * SEGMENT)


class Turncoat(FakeHub):
    """Honest on the second connection; the first one rewrites what that one brought.

    It is to go on to the end because the upstream ignores ranges from some moment on.
    """

    def __init__(self) -> None:
        super().__init__("turncoat")
        self.connections = 2
        self.ignoring = asyncio.Event()

    async def fetch(self, file: Located, start: int, stop: int) -> AsyncGenerator[bytes]:
        if start == 0:
            for at in range(0, 2 * SEGMENT, 16 * KIB):
                await asyncio.sleep(0.01)
                if at == SEGMENT // 2:
                    await self.ignoring.wait()
                yield BLOB.read(at, at + 16 * KIB)
            await asyncio.sleep(0.3)  # until the bytes of the others are hashed
            yield Twisted(BLOB, everywhere=True).read(2 * SEGMENT, 3 * SEGMENT)
            yield BLOB.read(3 * SEGMENT, stop)
        elif start < 4 * SEGMENT:
            yield BLOB.read(start, stop)
        else:
            self.ignoring.set()
            raise RangeIgnored(self.name, "200")


async def test_what_was_hashed_is_not_written_again(tmp_path: Path) -> None:
    hub = Turncoat()
    entry = hub.publish("acme/late", "model.bin", BLOB)
    (tmp_path / "spool").mkdir()
    store = LocalStore(tmp_path)
    tuning = Tuning(
        batch=16 * KIB, large=SEGMENT, segment=SEGMENT, slow=1e12, probe_s=0.0, tick_s=0.005
    )
    recency = Recency(tmp_path / "index-v1")
    cache = BlobCache(store, hub, data=tmp_path, recency=recency, tuning=tuning)
    try:
        async with asyncio.timeout(10):
            assert await cache.hold(entry)
        held = store.open(entry.digest)
        assert held is not None
        with held:
            assert hashlib.sha256(held.read()).hexdigest() == entry.digest.hex
    finally:
        await cache.close()
