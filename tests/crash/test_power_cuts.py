"""P02: the power fails between any two calls, and the disk keeps what it likes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from pathlib import Path

import pytest

from proxy.errors import IntegrityError
from proxy.mirror import cache as caches
from proxy.mirror import part as parts
from proxy.mirror.cache import BlobCache
from proxy.mirror.part import Part
from proxy.mirror.transfer import Tuning
from proxy.pins.lock import Entry
from proxy.store.local import LocalStore
from proxy.store.recency import Recency
from tests.crash.powercut import MODELS, Log, Model
from tests.fakes.content import Content
from tests.fakes.memory import FakeHub

LONG = os.environ.get("CRASH") == "long"
CHANCES = 20 if LONG else 1  # random disks for each cut
REFETCH_EVERY = 1 if LONG else 12  # of the disks, on so many the mirror goes on
KB = 1 << 10


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SYNC_EVERY", 24 * KB)
    monkeypatch.setattr(caches, "_REST_AFTER_BAD_S", 0.0)


def cache_on(data: Path, hub: FakeHub) -> BlobCache:
    (data / "spool").mkdir(mode=0o700, parents=True, exist_ok=True)
    tuning = Tuning(batch=8 * KB, flush_s=0.0, tick_s=0.01, backoff_s=0.001, tries=2)
    return BlobCache(
        LocalStore(data), hub, data=data, recency=Recency(data / "index-v1"), tuning=tuning
    )


async def scenario(log: Log, hub: FakeHub, entries: list[Entry]) -> None:
    """Files come, one of them wrong at first, with readers; one of them goes bad on the disk."""
    data = log.folder
    (data / "spool").mkdir(mode=0o700)
    vouch = Part.vouch

    def right(part: Part) -> None:
        log.mark(f"right sha256:{part.path.stem}")
        vouch(part)

    with log.recording(), pytest.MonkeyPatch.context() as watching:
        watching.setattr(Part, "vouch", right)
        log.mark("begun")
        cache = cache_on(data, hub)
        for entry in entries:
            hub.lies = entry.path == "lied.bin"
            while not await reads(log, cache, entry):
                hub.lies = False
                log.mark(f"lied {entry.digest}")
            log.mark(f"served {entry.digest}")
        await cache.close()


async def reads(log: Log, cache: BlobCache, entry: Entry) -> bool:
    reader = await cache.open(entry, entry.size)
    try:
        at = 0
        while at < entry.size:
            at = await reader.ready(at)
            log.mark(f"shown {entry.digest}")
    except IntegrityError:
        return False
    finally:
        reader.close()
    return True


def check(data: Path) -> set[str]:
    names = set()
    for path in (data / "blobs-v1").rglob("*"):
        if path.is_file():
            got = hashlib.sha256(path.read_bytes()).hexdigest()
            assert got == path.name, f"I1: {path.name} holds {got}"
            names.add(path.name)
    return names


@pytest.mark.row(
    "P02",
    "The power fails after any call; of what was not synced, anything may be left.",
    "Blobs are what their names say, what was served is there, clients that were shown unverified "
    "bytes are remembered, and the mirror goes on.",
)
async def test_p02_a_power_cut_costs_nothing_that_was_promised(tmp_path: Path) -> None:
    hub = FakeHub()
    hub.chunk = 8 * KB
    sizes = {"little.bin": 3 * KB, "lied.bin": 100 * KB, "big.bin": 150 * KB}
    contents = {path: Content(path, size) for path, size in sizes.items()}
    entries = [hub.publish("acme/m", path, content) for path, content in contents.items()]
    log = Log(tmp_path / "data")
    log.folder.mkdir()
    await scenario(log, hub, entries)
    pick = random.Random(2)
    models: list[Model] = [*MODELS, *(["some"] * CHANCES)]  # type: ignore[list-item]  # it is one
    states = 0
    for cut in range(len(log.ops) + 1):
        for model in models:
            states += 1
            data = tmp_path / f"disk-{states}"
            (data / "spool").mkdir(parents=True)  # from before the first call
            log.disk(cut, model, pick).write(data)
            try:
                await survives(data, log.marks(cut), hub, entries, states % REFETCH_EVERY == 0)
            except BaseException as e:
                e.add_note(f"cut after call {cut} ({log.ops[max(0, cut - 1)]}), {model} survived")
                raise
    assert states > 600


async def survives(
    data: Path, marks: set[str], hub: FakeHub, entries: list[Entry], goes_on: bool
) -> None:
    held = check(data)
    cache = cache_on(data, hub)
    try:
        cache.recover()
        for entry in entries:
            if f"served {entry.digest}" in marks:
                assert entry.digest.hex in held, f"I3: {entry.path} is lost"
            unverified = f"shown {entry.digest}" in marks and f"right {entry.digest}" not in marks
            if f"lied {entry.digest}" in marks or (unverified and entry.digest.hex not in held):
                assert cache.misled.limit(entry.digest) > 0, f"I4: {entry.path} was shown"
        if goes_on:
            async with asyncio.timeout(20):
                for entry in entries:
                    await cache.hold(entry)
            assert check(data) == {entry.digest.hex for entry in entries}
    finally:
        await cache.close()
