"""A stop in the very moment in which a finished download becomes a blob."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from proxy.errors import DigestMismatch, MirrorError
from proxy.hub.names import Digest
from proxy.mirror.part import Part
from proxy.store.local import LocalStore
from tests.mirror.bench import DATA, KB, Bench, read, read_all

WHOLE = DATA.read(0, DATA.size)


@pytest.mark.parametrize("renamed", [False, True])
async def test_a_stop_while_a_blob_is_stored_leaves_a_blob_and_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, renamed: bool
) -> None:
    """The thread that stores it cannot be stopped, so its part is no part any more."""
    entry = bench.publish()
    reached, go_on = threading.Event(), threading.Event()
    adopt = bench.store._adopt

    def slow(digest: Digest, file: Path) -> None:
        if renamed:
            adopt(digest, file)
        reached.set()
        assert go_on.wait(10)
        if not renamed:
            adopt(digest, file)

    monkeypatch.setattr(bench.store, "_adopt", slow)
    reading = asyncio.create_task(read_all(bench.cache, entry))
    await asyncio.to_thread(reached.wait, 10)
    asyncio.get_running_loop().call_later(0.1, go_on.set)
    await bench.restart()
    with suppress(MirrorError):  # whether it was told of the end in time does not matter here
        await reading

    assert await bench.store.size(entry.digest) == entry.size  # and it is sealed
    assert bench.spooled == []
    assert bench.cache.misled.limit(entry.digest) == 0


async def test_a_sidecar_that_cannot_be_deleted_does_not_spoil_a_stored_blob(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = bench.publish()
    unlink = Path.unlink

    def fails(self: Path, missing_ok: bool = False) -> None:
        if self == bench.sidecar(entry):
            raise OSError(errno.EIO, "Input/output error")
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", fails)
    before = len(os.listdir("/proc/self/fd"))
    assert len(await read_all(bench.cache, entry)) == entry.size
    assert len(os.listdir("/proc/self/fd")) <= before


# --- a crash in that moment -----------------------------------------------------------------------


@pytest.fixture
def crashed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory as it is when a part became a blob, and its sidecar is about to go."""
    copy = bench.data.with_name("crashed")
    forget = Part.forget

    def slow(part: Part) -> None:
        shutil.copytree(bench.data, copy)
        forget(part)

    monkeypatch.setattr(Part, "forget", slow)
    return copy


async def test_a_crash_then_makes_nobody_misled(bench: Bench, crashed: Path) -> None:
    entry = bench.publish()
    assert await read_all(bench.cache, entry) == WHOLE
    after = Bench(crashed)
    try:
        assert await after.store.size(entry.digest) == entry.size
        assert after.cache.misled.limit(entry.digest) == 0
        assert after.spooled == []
    finally:
        await after.close()


async def test_a_crash_then_does_not_excuse_an_earlier_lie(bench: Bench, crashed: Path) -> None:
    entry = bench.publish()
    bench.hub.wrong_times = 1
    with pytest.raises(DigestMismatch):
        await read_all(bench.cache, entry)
    await bench.cache.hold(entry)  # the next attempt is right
    after = Bench(crashed)
    try:
        assert await after.store.size(entry.digest) == entry.size
        assert 0 < after.cache.misled.limit(entry.digest) <= entry.size
    finally:
        await after.close()


async def test_a_crash_then_does_not_excuse_what_was_shown_before_an_earlier_one(
    bench: Bench, crashed: Path
) -> None:
    """Nobody knows any more which bytes these were, as far as they are not in the part."""
    entry = bench.publish()
    gate = bench.hub.hold_at(128 * KB)
    reader = await bench.cache.open(entry, entry.size)
    await read(reader, 0, 128 * KB)
    before = bench.cache
    bench.kill()
    reader.close()
    gate.open.set()
    await before.close()
    shutil.rmtree(crashed, ignore_errors=True)
    assert await read_all(bench.cache, entry) == WHOLE
    after = Bench(crashed)
    try:
        assert after.cache.misled.limit(entry.digest) >= entry.size
    finally:
        await after.close()


async def test_a_blob_that_came_otherwise_excuses_nothing(bench: Bench) -> None:
    """A server is killed, gc deletes the part with what clients saw, an import brings the blob."""
    entry = bench.publish()
    bench.hub.hold_at(128 * KB)
    reader = await bench.cache.open(entry, entry.size)
    await read(reader, 0, 128 * KB)
    reader.close()
    copy = bench.data.with_name("crashed")
    shutil.copytree(bench.data, copy)
    (copy / "spool" / bench.part(entry).name).unlink()
    brought = copy / "brought"
    brought.write_bytes(WHOLE)
    await LocalStore(copy).adopt(entry.digest, brought)
    after = Bench(copy)
    try:
        assert after.cache.misled.limit(entry.digest) >= entry.size
    finally:
        await after.close()
