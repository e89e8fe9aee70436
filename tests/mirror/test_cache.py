"""What went bad at rest is never served, and healed; what is held needs no upstream."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import msgspec
import pytest

from proxy.errors import DigestMismatch, StoreError, UpstreamUnavailable
from proxy.hub.names import Digest
from proxy.store.local import LocalStore
from tests.fakes.content import Content, Literal
from tests.mirror.bench import DATA, KB, QUICK, Bench, read, read_all

WHOLE = DATA.read(0, DATA.size)
EMPTY = Literal(b"")


def _altered(blob: Path) -> None:
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.seek(1000)
        file.write(b"!")


def _truncated(blob: Path) -> None:
    os.truncate(blob, 1000)


def _shortened_with_its_time_kept(blob: Path) -> None:
    before = blob.stat()
    os.truncate(blob, 1000)
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))


def _deleted(blob: Path) -> None:
    blob.unlink()


def _linked(blob: Path) -> None:
    secret = blob.with_name("secret")
    secret.write_bytes(b"s" * DATA.size)
    blob.unlink()
    blob.symlink_to(secret)


def _dangling(blob: Path) -> None:
    blob.unlink()
    blob.symlink_to("/nowhere")


def _piped(blob: Path) -> None:
    blob.unlink()
    os.mkfifo(blob)


def _folder(blob: Path) -> None:
    blob.unlink()
    blob.mkdir()
    (blob / "inside").touch()


HARM = [
    _altered,
    _truncated,
    _shortened_with_its_time_kept,
    _deleted,
    _linked,
    _dangling,
    _piped,
    _folder,
]


@pytest.mark.parametrize("harm", HARM)
async def test_what_went_bad_at_rest_is_healed_and_never_served(
    bench: Bench, harm: Callable[[Path], None]
) -> None:
    entry = bench.publish()
    await bench.cache.hold(entry)
    harm(bench.blob(entry))
    assert await read_all(bench.cache, entry) == WHOLE
    assert len(bench.hub.fetched) == 2
    assert await read_all(bench.cache, entry) == WHOLE
    assert len(bench.hub.fetched) == 2


@pytest.mark.parametrize("harm", HARM)
async def test_what_went_bad_is_an_error_while_no_upstream_can_heal_it(
    bench: Bench, harm: Callable[[Path], None]
) -> None:
    entry = bench.publish()
    await bench.cache.hold(entry)
    harm(bench.blob(entry))
    bench.hub.down = True
    for _ in range(2):
        with pytest.raises(UpstreamUnavailable):
            await read_all(bench.cache, entry)
    bench.hub.down = False
    assert await read_all(bench.cache, entry) == WHOLE


@pytest.mark.parametrize("harm", HARM)
async def test_a_whole_snapshot_is_held_again_after_harm(
    bench: Bench, harm: Callable[[Path], None]
) -> None:
    entry = bench.publish()
    await bench.cache.hold(entry)
    harm(bench.blob(entry))
    assert await bench.cache.hold(entry)
    assert bench.blob(entry).read_bytes() == WHOLE


@pytest.mark.parametrize("harm", [_linked, _piped, _folder])
async def test_an_empty_blob_is_no_exception(bench: Bench, harm: Callable[[Path], None]) -> None:
    """What cannot be read has the digest of nothing, and so has the empty file."""
    entry = bench.publish(EMPTY, "empty.txt")
    await bench.cache.hold(entry)
    harm(bench.blob(entry))
    assert not await bench.cache.held(entry)
    assert await bench.cache.hold(entry)
    assert await bench.cache.held(entry)


async def test_what_went_bad_is_kept_for_a_human(bench: Bench) -> None:
    entry = bench.publish()
    await bench.cache.hold(entry)
    _altered(bench.blob(entry))
    assert not await bench.cache.check(entry.digest)
    (kept,) = (bench.data / "quarantine").iterdir()
    assert kept.read_bytes()[1000:1001] == b"!"


async def test_a_right_blob_whose_time_was_changed_is_hashed_once_and_served(
    bench: Bench,
) -> None:
    entry = bench.publish()
    await bench.cache.hold(entry)
    os.utime(bench.blob(entry))  # as a backup that keeps no times restores it
    bench.hub.down = True
    assert await read_all(bench.cache, entry) == WHOLE
    assert await bench.store.size(entry.digest) == entry.size, "sealed again"


async def test_a_lock_that_says_another_size_never_gets_a_part_of_the_blob(bench: Bench) -> None:
    entry = bench.publish()
    await bench.cache.hold(entry)
    for size in (entry.size - 100 * KB, entry.size + 1):
        wrong = msgspec.structs.replace(entry, size=size)
        with pytest.raises(DigestMismatch):
            await read_all(bench.cache, wrong)
        with pytest.raises(DigestMismatch):
            await bench.cache.hold(wrong)
    assert await read_all(bench.cache, entry) == WHOLE


async def test_many_who_ask_for_an_altered_blob_wait_for_one_check(bench: Bench) -> None:
    entry = bench.publish()
    await bench.cache.hold(entry)
    _altered(bench.blob(entry))
    got = await asyncio.gather(*(read_all(bench.cache, entry) for _ in range(20)))
    assert all(one == WHOLE for one in got)
    assert len(bench.hub.fetched) == 2
    assert len(os.listdir(bench.data / "quarantine")) == 1


async def test_a_small_blob_is_loaded_once_it_is_held_and_while_it_is_right(bench: Bench) -> None:
    entry = bench.publish()
    assert bench.cache.load(entry) is None
    await bench.cache.hold(entry)
    assert bench.cache.load(entry) == WHOLE
    bench.blob(entry).chmod(0o600)
    bench.blob(entry).write_bytes(WHOLE)  # the same bytes, and who knows
    assert bench.cache.load(entry) is None


async def test_a_check_says_whether_the_blob_is_right(bench: Bench) -> None:
    entry = bench.publish()
    assert not await bench.cache.check(entry.digest), "not held at all"
    await bench.cache.hold(entry)
    assert await bench.cache.check(entry.digest)


class Starved(LocalStore):
    """There are no descriptors left for anything but opening."""

    number = errno.EMFILE

    async def read(
        self, digest: Digest, start: int = 0, stop: int | None = None
    ) -> AsyncGenerator[bytes]:
        raise StoreError("cannot read") from OSError(self.number, os.strerror(self.number))
        yield b""  # a generator


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_a_blob_that_cannot_be_read_for_want_of_something_else_is_not_put_aside(
    bench: Bench, number: int
) -> None:
    entry = bench.publish()
    await bench.cache.hold(entry)
    starved = Starved(bench.data)
    starved.number = number
    bench.cache._store = starved
    with pytest.raises(StoreError):
        await bench.cache.check(entry.digest)
    assert bench.blob(entry).exists()


async def test_a_blob_on_a_bad_sector_is_put_aside_and_fetched_again(bench: Bench) -> None:
    entry = bench.publish()
    await bench.cache.hold(entry)
    starved = Starved(bench.data)
    starved.number = errno.EIO
    bench.cache._store = starved
    assert not await bench.cache.check(entry.digest)
    assert await read_all(bench.cache, entry) == WHOLE
    assert len(bench.hub.fetched) == 2


async def test_a_reader_reads_on_while_its_blob_is_deleted(bench: Bench) -> None:
    entry = bench.publish()
    await bench.cache.hold(entry)
    reader = await bench.cache.open(entry, entry.size)
    await bench.store.delete(entry.digest)
    assert await read(reader, 0, entry.size) == WHOLE
    reader.close()


async def test_serving_a_held_blob_is_noted_for_gc(bench: Bench) -> None:
    entry = bench.publish()
    await bench.cache.hold(entry)
    assert bench.recency.last_served(entry.digest) == 0.0
    await read_all(bench.cache, entry)
    assert bench.recency.last_served(entry.digest) > 0.0


async def test_closing_leaves_no_task_and_no_thread_behind(bench: Bench) -> None:
    entry, other = bench.publish(), bench.publish(Content("other", 200 * KB), "other.bin")
    gate = bench.hub.hold_at(64 * KB)
    tasks = [asyncio.create_task(bench.cache.hold(one)) for one in (entry, other)]
    await gate.reached.wait()
    await bench.cache.close()
    assert all(
        isinstance(one, StoreError) for one in await asyncio.gather(*tasks, return_exceptions=True)
    )
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert bench.hub.active == 0


async def test_downloads_wait_their_turn_and_all_arrive(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "data", QUICK)
    entries = [bench.publish(Content(n, 2 * KB), f"{n}.bin") for n in range(40)]
    async with asyncio.timeout(20):
        await asyncio.gather(*(bench.cache.hold(entry) for entry in entries))
    assert bench.hub.most_active <= 32
    assert len(bench.hub.fetched) == 40
    await bench.close()


async def test_a_check_does_not_put_aside_what_came_in_the_place_of_the_bad_blob(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers may find the same blob altered, and one of them be done much sooner."""
    entry = bench.publish()
    await read_all(bench.cache, entry)
    _altered(bench.blob(entry))
    reading, go_on = asyncio.Event(), asyncio.Event()
    as_it_is = bench.store.read

    async def slowly(
        digest: Digest, start: int = 0, stop: int | None = None
    ) -> AsyncGenerator[bytes]:
        async for piece in as_it_is(digest, start, stop):
            reading.set()
            await go_on.wait()
            yield piece

    monkeypatch.setattr(bench.store, "read", slowly)
    check = asyncio.create_task(bench.cache.check(entry.digest))
    await reading.wait()
    healed = tmp_path / "healed"
    healed.write_bytes(WHOLE)
    await bench.store.adopt(entry.digest, healed)
    go_on.set()
    assert await check
    assert await bench.store.size(entry.digest) == entry.size
    assert not (bench.data / "quarantine").exists()
