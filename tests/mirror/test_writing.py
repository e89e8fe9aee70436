"""Bytes on their way to the disk: hashed as they are written, synced beside that, said once."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.errors import StoreError
from proxy.mirror import part as parts
from proxy.mirror.part import Part, Room
from proxy.mirror.transfer import Transfer
from tests.fakes.content import Content, Twisted
from tests.mirror.alone import Alone
from tests.mirror.bench import DATA, KB, QUICK, Bench, read_all, until
from tests.mirror.lanes import Lanes


@dataclass
class Desk:
    """Transfers into one part, whose threads can be held up."""

    alone: Alone
    part: Part
    hub: Lanes

    def transfer(self) -> Transfer:
        shop = self.alone.shop
        return Transfer(
            self.alone.entry, self.part, self.hub, shop.write, shop.hashing, lambda: None,
            shop.extra, QUICK,
        )  # fmt: skip

    async def cancelled_in_a_write(self) -> None:
        """A transfer that is given up while a thread writes its first piece."""
        self.alone.clerk.working.clear()
        running = asyncio.create_task(self.transfer().run())
        await self.hub.until(lambda: bool(self.hub.opened))
        await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.sleep(0.01)
        self.alone.clerk.working.set()
        with pytest.raises(asyncio.CancelledError):
            await running


@pytest.fixture
def desk(alone: Alone, tmp_path: Path) -> Iterator[Desk]:
    folder = tmp_path / "other"
    folder.mkdir()
    hub = Lanes()
    hub.world = alone.hub.world
    part = Part(folder, alone.entry.digest, alone.entry.size, Room(0))
    yield Desk(alone, part, hub)
    part.close()


async def test_what_a_cancelled_lane_wrote_counts_and_is_not_replaced(desk: Desk) -> None:
    await desk.cancelled_in_a_write()
    assert desk.part.hashed == desk.part.have.front > 0
    desk.hub.content = Twisted(DATA, everywhere=True)  # other bytes the second time
    await desk.transfer().run()
    desk.part.hash(DATA.size)
    held = desk.part.read(0, DATA.size)
    assert desk.part.digest() == f"sha256:{hashlib.sha256(held).hexdigest()}"


async def test_what_a_cancelled_lane_could_not_write_is_not_hashed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(offset: int, piece: object) -> None:
        raise StoreError("no")

    with monkeypatch.context() as broken:
        broken.setattr(desk.part, "write", fail)
        await desk.cancelled_in_a_write()
    assert desk.part.hashed == desk.part.have.total == 0
    await desk.transfer().run()
    desk.part.hash(DATA.size)
    assert desk.part.digest() == desk.alone.entry.digest


async def test_a_sync_that_fails_ends_the_download(
    alone: Alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told once, and then reading and syncing may well succeed."""
    times = iter(range(1000))
    sync = os.fdatasync

    def fail_once(fd: int) -> None:
        if next(times) == 0:
            raise OSError(errno.EIO, "no")
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", fail_once)
    monkeypatch.setattr(parts, "SYNC_EVERY", 200 * KB)
    await alone.fill.run()
    assert isinstance(alone.fill.error, StoreError)
    assert not alone.fill.held
    assert await alone.shop.store.size(alone.entry.digest) is None
    assert list(tmp_path.glob("*.part")) == [], "its bytes are not trusted again"


async def test_a_sync_that_failed_is_found_by_whoever_looks(desk: Desk) -> None:
    """A lane may have seen it, at a moment when nobody looks at lanes any more."""

    async def fail() -> None:
        raise StoreError("no")

    whole = DATA.read(0, DATA.size)
    desk.part.write(0, whole)
    desk.part.wrote(0, len(whole))
    transfer = desk.transfer()
    transfer._syncing = failed = asyncio.ensure_future(fail())
    with pytest.raises(StoreError):
        await transfer._synced(failed)
    with pytest.raises(StoreError):
        await transfer.run()


async def test_nothing_is_shown_before_that_is_on_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither to the one who has it written, nor to the next one, who finds it half done."""
    entry = bench.publish()
    gate = bench.hub.hold_at(192 * KB)
    holding = asyncio.create_task(bench.cache.hold(entry))
    await gate.reached.wait()
    begun, go_on = threading.Event(), threading.Event()

    def slow_sync(_: Path) -> None:
        begun.set()
        assert go_on.wait(10)

    monkeypatch.setattr(parts, "_sync_folder", slow_sync)
    first = await bench.cache.open(entry, entry.size)
    second = await bench.cache.open(entry, entry.size)
    waiting = [asyncio.create_task(first.ready(0))]
    await asyncio.to_thread(begun.wait, 10)
    waiting.append(asyncio.create_task(second.ready(0)))
    done, _ = await asyncio.wait(waiting, timeout=0.1)
    assert not done
    go_on.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
    first.close()
    second.close()
    gate.open.set()
    await holding


async def test_a_small_file_that_nobody_watches_writes_no_sidecar(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[Path] = []
    monkeypatch.setattr(Part, "_record", lambda part, *_, **__: recorded.append(part.path))
    entry = bench.publish(Content("small", 10 * KB))
    await bench.cache.hold(entry)
    await read_all(bench.cache, entry)
    assert recorded == []


async def test_a_download_that_cannot_be_noted_ends_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not when all of it has come: somebody waits to be shown its beginning."""
    entry = bench.publish()
    gate = bench.hub.hold_at(64 * KB)

    def full(part: Part) -> None:
        raise StoreError(f"write {part.path}: no space left")

    monkeypatch.setattr(Part, "expose", full)
    reader = await bench.cache.open(entry, entry.size)
    fill = bench.fill()
    async with asyncio.timeout(5):
        with pytest.raises(StoreError, match="no space left"):
            await reader.ready(0)
        await until(fill, lambda: fill.error is not None)
    reader.close()
    assert not gate.open.is_set()
