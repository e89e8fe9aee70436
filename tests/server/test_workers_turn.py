"""A new catalog for all workers, when every thread that others use is taken."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from proxy.config import Config
from proxy.pins.versions import Texts
from proxy.server.workers import Workers


async def test_a_reload_needs_no_second_thread_of_those_that_others_wait_in(tmp_path: Path) -> None:
    """Six SIGHUPs while a large lock is read took all threads of a machine with two cores."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    workers = Workers(Config(data=tmp_path / "data"))
    workers._loop = loop  # as while they run; there are none to be told
    try:
        async with asyncio.timeout(5):
            await asyncio.to_thread(workers.put, 7, Texts("allow: []\n", None))
        assert workers.current == 7
    finally:
        workers.close()
