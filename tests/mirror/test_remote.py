"""Downloads by another process of ours: the same promises, and what happens when it dies."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import pytest

from proxy.errors import DigestMismatch, StoreError, UpstreamMissing, UpstreamUnavailable
from proxy.mirror import channel, fetching
from proxy.mirror import part as parts
from proxy.mirror.cache import BlobCache
from proxy.mirror.channel import Channel
from proxy.mirror.follower import HOLD_BACK
from proxy.mirror.part import Part
from proxy.mirror.remote import Fetcher, Remote
from proxy.store.local import LocalStore
from proxy.telemetry import metrics
from tests.fakes.content import Content
from tests.mirror.bench import DATA, KB, QUICK, Bench, read, read_all

WHOLE = DATA.read(0, DATA.size)


class Far:
    """A fetcher that works in this process, over a real channel, and can be made to die."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._task: asyncio.Task[None] | None = None
        self.launched = 0
        self.doomed = False  # ends as soon as it is asked for something
        self.babbles = False  # once, it answers with what is no message
        self.breaks = False  # once, starting it fails as nobody expected

    @asynccontextmanager
    async def launch(self) -> AsyncIterator[Channel]:
        self.launched += 1
        if self.breaks:
            self.breaks = False
            raise RuntimeError("as nobody expected")
        ours, theirs = socket.socketpair()
        near, far = await channel.connect(ours), await channel.connect(theirs)
        self._task = asyncio.create_task(self._serve(far))
        try:
            yield near
        finally:
            await near.close()
            await asyncio.gather(self._task, return_exceptions=True)
            await far.close()

    async def _serve(self, line: Channel) -> None:
        bench = self._bench
        cache = BlobCache(
            LocalStore(bench.data),
            bench.hub,
            data=bench.data,
            recency=bench.recency,
            tuning=QUICK,
        )
        try:
            if self.doomed:
                await anext(line.messages())
            elif self.babbles:
                self.babbles = False
                async for _ in line.messages():
                    line.send([])  # type: ignore[arg-type]  # that is the point
            else:
                await fetching.serve_channel(line, cache)
        finally:
            await cache.close()
            await line.close()

    def die(self) -> None:
        """As if it had been killed, but for what it writes down on its way out."""
        assert self._task is not None
        self._task.cancel()


@pytest.fixture
async def far(tmp_path: Path) -> AsyncGenerator[tuple[Bench, Far]]:
    bench = Bench(tmp_path / "data")
    far = Far(bench)
    fetcher = Fetcher(far.launch, store=bench.store, spool=bench.cache.spool)
    bench.cache.make_fill = fetcher.fill
    async with AsyncExitStack() as stack:
        stack.push_async_callback(bench.close)
        await stack.enter_async_context(fetcher.running())
        yield bench, far


async def test_a_blob_is_fetched_once_and_read_while_it_arrives(far: tuple[Bench, Far]) -> None:
    bench, _ = far
    entry = bench.publish()
    gate = bench.hub.hold_at(192 * KB)
    readers = [asyncio.create_task(read_all(bench.cache, entry)) for _ in range(5)]
    early = await bench.cache.open(entry, entry.size)
    async with asyncio.timeout(10):
        assert await read(early, 0, 128 * KB) == WHOLE[: 128 * KB]
    early.close()
    gate.open.set()
    assert await asyncio.gather(*readers) == [WHOLE] * 5
    assert bench.hub.fetched == [("model.bin", 0)]
    assert bench.blob(entry).read_bytes() == WHOLE


async def test_a_bounded_range_waits_for_the_verdict(far: tuple[Bench, Far]) -> None:
    bench, _ = far
    entry = bench.publish()
    gate = bench.hub.hold_at(256 * KB)
    bounded = asyncio.create_task(read_all(bench.cache, entry, 0, 64 * KB))
    early = await bench.cache.open(entry, entry.size)
    async with asyncio.timeout(10):
        await early.ready(0)
    assert not bounded.done()
    gate.open.set()
    assert await bounded == WHOLE[: 64 * KB]
    early.close()


async def test_wrong_bytes_cut_who_saw_them_and_are_remembered(far: tuple[Bench, Far]) -> None:
    bench, _ = far
    entry = bench.publish()
    bench.hub.wrong_times = 1
    gate = bench.hub.hold_at(192 * KB)
    reader = await bench.cache.open(entry, entry.size)
    async with asyncio.timeout(10):
        assert await reader.ready(0) > 0
    gate.open.set()
    with pytest.raises(DigestMismatch):
        await read(reader, 128 * KB, entry.size)
    reader.close()
    assert bench.cache.misled.limit(entry.digest) > 0
    assert await read_all(bench.cache, entry) == WHOLE


async def test_who_saw_nothing_yet_gets_the_next_attempt(far: tuple[Bench, Far]) -> None:
    bench, _ = far
    entry = bench.publish()
    bench.hub.wrong_times = 1
    assert await read_all(bench.cache, entry, 0, 64 * KB) == WHOLE[: 64 * KB]


async def test_an_error_comes_over_with_its_facts(far: tuple[Bench, Far]) -> None:
    bench, _ = far
    entry = bench.publish()
    bench.hub.down, bench.hub.retry_after_s = True, 99.0
    with pytest.raises(UpstreamUnavailable) as caught:
        await read_all(bench.cache, entry)
    assert caught.value.retry_after_s == 99.0
    assert caught.value.upstream in str(caught.value)


async def test_a_fetcher_that_dies_is_replaced_and_goes_on(far: tuple[Bench, Far]) -> None:
    bench, fetcher = far
    entry = bench.publish()
    gate = bench.hub.hold_at(128 * KB)
    waiting = asyncio.create_task(read_all(bench.cache, entry, 0, 64 * KB))
    async with asyncio.timeout(10):
        await gate.reached.wait()
    fetcher.die()
    gate.open.set()
    assert await waiting == WHOLE[: 64 * KB]
    assert fetcher.launched == 2
    (_, first), (_, second) = bench.hub.fetched
    assert first == 0
    assert 0 < second < entry.size


async def test_who_saw_bytes_of_a_fetcher_that_died_is_cut(far: tuple[Bench, Far]) -> None:
    bench, fetcher = far
    entry = bench.publish()
    gate = bench.hub.hold_at(128 * KB)
    reader = await bench.cache.open(entry, entry.size)
    async with asyncio.timeout(10):
        await reader.ready(0)
    fetcher.die()
    gate.open.set()
    with pytest.raises(DigestMismatch):
        await read(reader, 64 * KB, entry.size)
    reader.close()


async def test_a_fetcher_that_dies_again_and_again_fails_downloads(far: tuple[Bench, Far]) -> None:
    bench, fetcher = far
    other = bench.publish(Content("other", 10))
    await bench.cache.hold(other)
    entry = bench.publish()
    fetcher.doomed = True
    fetcher.die()
    with pytest.raises(StoreError, match="again and again"):
        await read_all(bench.cache, entry, 0, entry.size - HOLD_BACK)
    fetcher.doomed = False
    assert await read_all(bench.cache, entry) == WHOLE


@pytest.mark.parametrize(
    ("fault", "said"),
    [("babbles", "AttributeError"), ("breaks", "RuntimeError: as nobody expected")],
)
async def test_a_fetcher_that_fails_as_nobody_expected_is_replaced_and_that_is_told(
    far: tuple[Bench, Far], caplog: pytest.LogCaptureFixture, fault: str, said: str
) -> None:
    bench, fetcher = far
    await bench.cache.hold(bench.publish(Content("other", 10)))
    entry = bench.publish()
    setattr(fetcher, fault, True)
    fetcher.die()
    assert await read_all(bench.cache, entry) == WHOLE
    assert fetcher.launched == 3
    assert said in caplog.text


async def test_a_server_that_stops_tells_its_readers(far: tuple[Bench, Far]) -> None:
    bench, _ = far
    entry = bench.publish()
    bench.hub.hold_at(0)
    reader = await bench.cache.open(entry, entry.size)
    await bench.cache.close()
    with pytest.raises(StoreError, match="stopped"):
        await reader.ready(0)


async def test_wrong_attempts_and_their_source_are_known_here(far: tuple[Bench, Far]) -> None:
    bench, _ = far
    entry = bench.publish()
    bench.hub.wrong_times = 2
    fill = bench.cache.start(entry)
    await bench.cache.hold(entry)
    assert (fill.wrong, fill.source) == (2, bench.hub.name)


async def test_answers_429_that_the_fetcher_met_are_counted_here(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "data")
    remote = Remote(store=bench.store, spool=bench.cache.spool)
    ours, theirs = socket.socketpair()
    near, far = await channel.connect(ours), await channel.connect(theirs)
    before = metrics.REGISTRY.get_sample_value("hubpin_upstream_limited_total") or 0.0
    far.send({"limited": 3})
    await far.close()
    await remote.work_over(near)
    assert metrics.REGISTRY.get_sample_value("hubpin_upstream_limited_total") == before + 3
    await near.close()
    await bench.close()


async def test_nothing_is_shown_before_the_other_end_wrote_that_down(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "data")
    entry = bench.publish()
    part = bench.cache.spool / f"{entry.digest.hex}.part"
    part.write_bytes(WHOLE)
    remote = Remote(store=bench.store, spool=bench.cache.spool)
    bench.cache.make_fill = remote.fill
    ours, theirs = socket.socketpair()
    near, far = await channel.connect(ours), await channel.connect(theirs)
    working = asyncio.create_task(remote.work_over(near))
    reader = await bench.cache.open(entry, entry.size)
    shown = asyncio.create_task(reader.ready(0))
    async with aclosing(far.messages()) as messages, asyncio.timeout(10):
        number = (await anext(messages))["id"]
        came = {"id": number, "attempt": 0, "inode": part.stat().st_ino, "wrong": 0}
        far.send({**came, "front": 64 * KB})
        assert (await anext(messages))["do"] == "expose"
        fill = bench.cache.start(entry)
        far.send({**came, "front": 128 * KB})
        while fill.front < 128 * KB:
            await fill.changed.wait()
        await asyncio.sleep(0)
        assert not shown.done()
        far.send({"id": number, "attempt": 0, "exposed": True})
        assert await shown >= 64 * KB
    reader.close()
    await bench.close()
    await far.close()
    await working
    await near.close()


async def test_what_failed_a_moment_ago_is_told_and_not_tried_again(
    far: tuple[Bench, Far],
) -> None:
    bench, _ = far
    entry = bench.publish()
    bench.hub.wrong_times = 99
    with pytest.raises(DigestMismatch):
        await read_all(bench.cache, entry, 0, 10)
    tried = len(bench.hub.fetched)
    bench.cache._bad.clear()  # only the other end remembers, as it does for a worker
    with pytest.raises(DigestMismatch):
        await read_all(bench.cache, entry, 0, 10)
    assert len(bench.hub.fetched) == tried


async def test_nothing_is_shown_before_the_fetcher_wrote_that_down(
    far: tuple[Bench, Far], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, _ = far
    go_on = threading.Event()
    monkeypatch.setattr(parts, "_sync_folder", lambda _: go_on.wait(10))
    entry = bench.publish()
    gate = bench.hub.hold_at(192 * KB)
    holding = asyncio.create_task(bench.cache.hold(entry))
    await gate.reached.wait()
    reader = await bench.cache.open(entry, entry.size)
    showing = asyncio.create_task(reader.ready(0))
    done, _pending = await asyncio.wait([showing], timeout=0.1)
    assert not done
    go_on.set()
    async with asyncio.timeout(5):
        await showing
    reader.close()
    gate.open.set()
    await holding


async def test_nothing_is_shown_of_a_part_that_is_being_put_down(
    far: tuple[Bench, Far], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its download has failed and says so in a moment; nobody would note who sees its bytes."""
    bench, _ = far
    keeping, go_on = threading.Event(), threading.Event()
    keep = Part.keep

    def slow(part: Part, exposed: int) -> None:
        keeping.set()
        assert go_on.wait(10)
        keep(part, exposed)

    monkeypatch.setattr(Part, "keep", slow)
    breaks = asyncio.Event()

    async def gone(_: int, at: int) -> None:
        if at >= 192 * KB:
            await breaks.wait()
            raise UpstreamMissing("fake", "gone")

    bench.hub.before = gone
    entry = bench.publish()
    holding = asyncio.create_task(bench.cache.hold(entry))
    await asyncio.sleep(0)
    fill = bench.cache.start(entry)
    while fill.front < 192 * KB:
        await fill.changed.wait()
    breaks.set()
    await asyncio.to_thread(keeping.wait, 10)
    reader = await bench.cache.open(entry, entry.size)
    showing = asyncio.create_task(reader.ready(0))
    done, _pending = await asyncio.wait([showing], timeout=0.2)
    go_on.set()
    assert not done
    with pytest.raises(UpstreamMissing):
        await showing
    reader.close()
    with pytest.raises(UpstreamMissing):
        await holding


async def test_progress_that_is_gathered_is_told_in_the_end(
    far: tuple[Bench, Far], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if nothing comes after it for long."""
    bench, _ = far
    monkeypatch.setattr(fetching, "_AT_ONCE", 0)
    monkeypatch.setattr(fetching, "_GATHER_S", 0.05)
    entry = bench.publish()
    gate = bench.hub.hold_at(192 * KB)
    reader = await bench.cache.open(entry, entry.size)
    async with asyncio.timeout(5):
        assert await read(reader, 0, 192 * KB) == WHOLE[: 192 * KB]
        gate.open.set()
        assert await read(reader, 192 * KB, entry.size) == WHOLE[192 * KB :]
    reader.close()


async def test_an_order_that_is_refused_does_not_end_the_fetcher(far: tuple[Bench, Far]) -> None:
    """Another server's clock may think that wrong bytes have rested long enough."""
    bench, fetcher = far
    entry = bench.publish()
    bench.hub.wrong_times = 9
    with pytest.raises(DigestMismatch):
        await read_all(bench.cache, entry, 0, 64 * KB)
    bench.cache._bad.clear()
    with pytest.raises(DigestMismatch):
        await read_all(bench.cache, entry, 0, 64 * KB)
    assert fetcher.launched == 1
