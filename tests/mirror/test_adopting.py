"""A stop in the very moment in which a finished download becomes a blob."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from proxy.errors import MirrorError
from proxy.hub.names import Digest
from tests.mirror.bench import Bench, read_all


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
