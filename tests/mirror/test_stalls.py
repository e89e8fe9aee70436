"""An upstream that goes silent: what came is shown, and does not wait for more."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from tests.mirror.bench import DATA, KB, MB, QUICK, Bench, read

WHOLE = DATA.read(0, DATA.size)


async def test_what_came_before_a_stall_is_shown(tmp_path: Path) -> None:
    """A batch that is not full yet must not wait for a chunk that may never come."""
    bench = Bench(tmp_path / "data", replace(QUICK, batch=MB, flush_s=0.02))
    try:
        entry = bench.publish()
        gate = bench.hub.hold_at(128 * KB)
        reader = await bench.cache.open(entry, entry.size)
        async with asyncio.timeout(10):
            assert await read(reader, 0, 128 * KB) == WHOLE[: 128 * KB]
        gate.open.set()
        assert await read(reader, 128 * KB, entry.size) == WHOLE[128 * KB :]
        reader.close()
    finally:
        await bench.close()
