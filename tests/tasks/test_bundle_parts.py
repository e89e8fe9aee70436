"""Bundles in parts and through pipes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from proxy.errors import BundleInvalid, ConfigError, StoreError
from proxy.tasks.export import export
from proxy.tasks.import_ import import_bundle
from proxy.tasks.volumes import FileSink, PipeSink, Source, find
from proxy.upstream.offline import OfflineUpstream
from tests.tasks.bundles import (
    FILES,
    NEW_FILES,
    V23,
    V24,
    expectant_site,
    result,
    run_export,
    run_import,
    served,
    two_versions,
)
from tests.tasks.conftest import Site, collect


@pytest.fixture
async def near(tmp_path: Path) -> Site:
    return await two_versions(tmp_path / "near")


@pytest.fixture
def far(tmp_path: Path) -> Site:
    return expectant_site(tmp_path / "far")


@pytest.mark.parametrize("size", [100, 512, 4096, 1 << 20])
async def test_a_bundle_in_parts_arrives_whole(
    size: int, near: Site, far: Site, tmp_path: Path
) -> None:
    finished = await run_export(near, tmp_path / "site.hubpin", split=size)
    parts = sorted(tmp_path.glob("site.hubpin.*"))
    assert [str(part) for part in parts] == list(finished.written)
    assert all(part.stat().st_size == size for part in parts[:-1])
    await run_import(far, *reversed(parts))
    assert await served(far) == {V23: FILES, V24: NEW_FILES}


@pytest.mark.parametrize("name", ["site.hubpin", "site.hubpin.000"])
async def test_parts_are_found_by_the_name_of_the_whole_or_of_the_first(
    name: str, near: Site, far: Site, tmp_path: Path
) -> None:
    await run_export(near, tmp_path / "site.hubpin", split=5000)
    assert result(await run_import(far, tmp_path / name)).taken_files == 4


async def test_parts_joined_are_the_bundle(near: Site, tmp_path: Path) -> None:
    await run_export(near, tmp_path / "whole")
    await run_export(near, tmp_path / "split", split=700)
    joined = b"".join(part.read_bytes() for part in sorted(tmp_path.glob("split.*")))
    assert joined == (tmp_path / "whole").read_bytes()


async def test_a_part_that_is_missing_is_named(near: Site, far: Site, tmp_path: Path) -> None:
    await run_export(near, tmp_path / "site.hubpin", split=5000)
    parts = sorted(tmp_path.glob("site.hubpin.*"))
    with pytest.raises(ConfigError, match=r"site\.hubpin\.001 is missing"):
        find([parts[0], parts[2]])
    parts[-1].unlink()
    with pytest.raises(BundleInvalid, match=rf"is site\.hubpin\.00{len(parts) - 1} missing"):
        await run_import(far, tmp_path / "site.hubpin")
    assert await served(far) == {}


async def test_a_part_may_be_carried_away_while_the_next_is_written(
    near: Site, far: Site, tmp_path: Path
) -> None:
    """So the disk need not hold them all."""
    stick = tmp_path / "stick"
    stick.mkdir()
    async with near.mirror(OfflineUpstream(), offline=True) as mirror:
        async for _ in export(mirror, None, FileSink(tmp_path / "site.hubpin", 3000)):
            for part in tmp_path.glob("site.hubpin.[0-9][0-9][0-9]"):
                part.rename(stick / part.name)
    await run_import(far, stick / "site.hubpin")
    assert await served(far) == {V23: FILES, V24: NEW_FILES}


async def test_so_many_parts_that_their_numbers_run_out_are_refused(
    near: Site, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="1000 parts"):
        await run_export(near, tmp_path / "site.hubpin", split=10)


async def test_a_bundle_goes_through_a_pipe(near: Site, far: Site) -> None:
    reading, writing = os.pipe()

    async def send() -> None:
        async with near.mirror(OfflineUpstream(), offline=True) as mirror:
            with os.fdopen(writing, "wb", buffering=0) as pipe:
                await collect(export(mirror, None, PipeSink(pipe)))

    async def receive() -> None:
        async with far.mirror(OfflineUpstream(), offline=True) as mirror:
            with os.fdopen(reading, "rb") as pipe:
                await collect(import_bundle(mirror, Source(pipe=pipe), accept_pins=True))

    async with asyncio.timeout(30):
        await asyncio.gather(send(), receive())
    assert await served(far) == {V23: FILES, V24: NEW_FILES}


async def test_a_reader_that_goes_away_ends_the_export(near: Site) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    async with near.mirror(OfflineUpstream(), offline=True) as mirror:
        with os.fdopen(writing, "wb", buffering=0) as pipe, pytest.raises(StoreError, match="pipe"):
            await collect(export(mirror, None, PipeSink(pipe, "the pipe")))
