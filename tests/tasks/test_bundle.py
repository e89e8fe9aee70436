"""Bundles are carried from site to site: whole, or only what is new."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.errors import ConfigError, DigestMismatch, StoreError
from proxy.hub.names import Pair
from proxy.pins import lock as locks
from proxy.tasks import bundle
from proxy.tasks import import_ as importing
from proxy.tasks.export import Wrote, export
from proxy.tasks.gc import gc
from proxy.tasks.import_ import import_bundle
from proxy.tasks.volumes import FileSink, Source
from proxy.upstream.offline import OfflineUpstream
from tests.fakes.memory import FakeHub
from tests.tasks.bundles import (
    FILES,
    NEW_FILES,
    V23,
    V24,
    Archive,
    empty_site,
    example,
    expectant_site,
    held,
    names,
    result,
    run_export,
    run_import,
    served,
    site_with,
    two_versions,
)
from tests.tasks.conftest import PAIR, Site, collect


@pytest.fixture
async def near(tmp_path: Path) -> Site:
    return await two_versions(tmp_path / "near")


@pytest.fixture
def far(tmp_path: Path) -> Site:
    return expectant_site(tmp_path / "far")


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, if this machine has one: ten thousand files are synced one by one."""
    shared = Path("/dev/shm")
    base = shared if shared.is_dir() and os.access(shared, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=base) as folder:
        yield Path(folder)


# --- there and back ------------------------------------------------------------------------------


async def test_what_one_site_exports_another_serves(near: Site, far: Site, tmp_path: Path) -> None:
    await run_export(near, tmp_path / "site.hubpin")
    finished = result(await run_import(far, tmp_path / "site.hubpin"))
    assert await served(far) == {V23: FILES, V24: NEW_FILES}
    assert (finished.taken_files, finished.pins) == (4, 2)
    assert far.lock() == near.lock()


async def test_files_of_awkward_sizes_arrive(tmp_path: Path) -> None:
    """Nothing at all, and a block of tar more or less one byte."""
    files = {str(size): bytes([size % 251]) * size for size in (0, 1, 511, 512, 513, 3 << 20)}
    near = await site_with(tmp_path / "near", example(V23, files))
    far = empty_site(tmp_path / "far")
    far.allow(f"- {V23}")
    await run_export(near, tmp_path / "site.hubpin")
    await run_import(far, tmp_path / "site.hubpin")
    assert await served(far) == {V23: files}


async def test_a_bundle_is_the_same_bytes_every_time_and_as_long_as_announced(
    near: Site, tmp_path: Path
) -> None:
    finished = await run_export(near, tmp_path / "one")
    await run_export(near, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").stat().st_size == finished.archive_bytes


async def test_every_blob_is_in_a_bundle_once_and_tar_can_read_it(
    near: Site, tmp_path: Path
) -> None:
    await run_export(near, tmp_path / "site.hubpin")
    listed = names(tmp_path / "site.hubpin")
    digests = near.lock().digests()
    assert listed[0] == "manifest.json"
    assert sorted(listed[1:]) == sorted(bundle.blob_name(one) for one in digests)


async def test_only_the_pairs_that_were_named_are_exported(
    near: Site, far: Site, tmp_path: Path
) -> None:
    await run_export(near, tmp_path / "site.hubpin", V23)
    await run_import(far, tmp_path / "site.hubpin")
    assert await served(far) == {V23: FILES}


async def test_a_file_above_eight_gigabytes_has_a_size_that_tar_understands() -> None:
    size = 20 << 30
    block = bundle.header("manifest.json", size)
    with tempfile.TemporaryFile() as file:
        file.write(block)
        file.seek(0)
        assert bundle.read_header(Source(pipe=file), "manifest.json") == size


async def test_ten_thousand_files_arrive(memory: Path) -> None:
    files = {f"data/{n // 100}/{n}.txt": b"%d\n" % n for n in range(10_000)}
    near = await site_with(memory / "near", example("org/m@main", files))
    far = empty_site(memory / "far")
    far.allow("- org/m@main")
    await run_export(near, memory / "site.hubpin")
    finished = result(await run_import(far, memory / "site.hubpin"))
    assert finished.taken_files == 10_000
    assert far.lock() == near.lock()
    assert await held(far) == near.lock().digests()


# --- exporting -----------------------------------------------------------------------------------


async def test_what_is_not_held_is_fetched_before_anything_is_written(
    site: Site, hub: FakeHub, tmp_path: Path
) -> None:
    await site.run_lock()
    async with site.mirror() as mirror:
        sink = FileSink(tmp_path / "site.hubpin")
        await collect(export(mirror, None, sink))
    assert ("model.bin", 0) in hub.fetched
    far = empty_site(tmp_path / "far")
    far.allow(f"- {PAIR}")
    await run_import(far, tmp_path / "site.hubpin")
    assert (await served(far))[PAIR]["model.bin"] == bytes(range(256)) * 4000


async def test_files_that_cannot_be_had_are_named_and_nothing_is_written(
    site: Site, tmp_path: Path
) -> None:
    await site.run_lock()
    with pytest.raises(StoreError, match=r"acme/tiny model\.bin"):
        await run_export(site, tmp_path / "site.hubpin")
    assert not list(tmp_path.glob("site.hubpin*"))


async def test_a_blob_that_went_bad_stops_the_export_with_its_name(
    near: Site, tmp_path: Path
) -> None:
    digest = near.lock().pins[Pair(V23)].files["model.bin"].digest
    file = near.config.data / "blobs-v1/sha256" / digest.hex[:2] / digest.hex
    status = file.stat()
    file.chmod(0o644)
    file.write_bytes(b"WEIGHTS" * 1000)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # so that only hashing tells
    with pytest.raises(DigestMismatch, match=r"org/m model\.bin"):
        await run_export(near, tmp_path / "site.hubpin")
    assert not list(tmp_path.glob("site.hubpin*"))
    assert digest not in await held(near)


async def test_a_file_that_is_there_is_not_overwritten(near: Site, tmp_path: Path) -> None:
    (tmp_path / "site.hubpin").write_text("mine")
    with pytest.raises(ConfigError, match="already"):
        await run_export(near, tmp_path / "site.hubpin")
    assert (tmp_path / "site.hubpin").read_text() == "mine"


async def test_a_filter_that_was_tightened_holds_for_exports(
    near: Site, far: Site, tmp_path: Path
) -> None:
    near.allow("- repo: org/m\n  revision: v23\n  exclude: ['*.bin']")
    await run_export(near, tmp_path / "site.hubpin")
    await run_import(far, tmp_path / "site.hubpin")
    pin = far.lock().pins[Pair(V23)]
    assert (sorted(pin.files), pin.exclude) == (["config.json", "sub/vocab.txt"], ("*.bin",))


async def test_an_export_that_is_stopped_leaves_nothing(near: Site, tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "site.hubpin", 600)
    async with (
        near.mirror(OfflineUpstream(), offline=True) as mirror,
        aclosing(export(mirror, None, sink)) as run,
    ):
        async for event in run:
            if isinstance(event, Wrote):
                assert list(tmp_path.glob("site.hubpin*"))
                break
    assert not list(tmp_path.glob("site.hubpin*"))


# --- only what is new ----------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["bundle", "fingerprint", "short fingerprint"])
async def test_an_export_since_another_holds_only_what_is_new(
    by: str, near: Site, far: Site, tmp_path: Path
) -> None:
    await run_export(near, tmp_path / "old.hubpin", V23)
    print_ = locks.fingerprint(near.lock().pins[Pair(V23)].files.values())
    since = {
        "bundle": str(tmp_path / "old.hubpin"),
        "fingerprint": print_,
        "short fingerprint": print_.hex[:16],
    }
    finished = await run_export(near, tmp_path / "new.hubpin", V24, since=since[by])
    assert finished.files == 1
    assert len(names(tmp_path / "new.hubpin")) == 2
    await run_import(far, tmp_path / "old.hubpin")
    await run_import(far, tmp_path / "new.hubpin")
    assert await served(far) == {V23: FILES, V24: NEW_FILES}


async def test_what_an_export_left_out_must_be_here_before_its_pins_count(
    near: Site, far: Site, tmp_path: Path
) -> None:
    await run_export(near, tmp_path / "old.hubpin", V23)
    await run_export(near, tmp_path / "new.hubpin", V24, since=str(tmp_path / "old.hubpin"))
    with pytest.raises(StoreError, match=r"config\.json.*Import the earlier one first"):
        await run_import(far, tmp_path / "new.hubpin")
    assert await served(far) == {}


@pytest.mark.parametrize("since", ["nothing.hubpin", "0" * 64])
async def test_an_earlier_export_that_nobody_knows_is_refused(
    since: str, near: Site, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="since"):
        await run_export(near, tmp_path / "site.hubpin", since=since)


# --- importing -----------------------------------------------------------------------------------


async def test_an_import_that_failed_goes_on_where_it_was(
    near: Site, far: Site, tmp_path: Path
) -> None:
    await run_export(near, tmp_path / "site.hubpin")
    right = (tmp_path / "site.hubpin").read_bytes()
    archive = Archive.read(tmp_path / "site.hubpin")
    archive.blobs[-1] = replace(archive.blobs[-1], content=b"x" * len(archive.blobs[-1].content))
    archive.write(tmp_path / "site.hubpin")
    with pytest.raises(DigestMismatch):
        await run_import(far, tmp_path / "site.hubpin")
    assert await served(far) == {}
    inodes = _inodes(far)
    assert len(inodes) == 3
    (tmp_path / "site.hubpin").write_bytes(right)
    finished = result(await run_import(far, tmp_path / "site.hubpin"))
    assert (finished.taken_files, finished.held_files) == (1, 3)
    assert inodes.items() <= _inodes(far).items()
    assert await served(far) == {V23: FILES, V24: NEW_FILES}


async def test_an_import_that_is_stopped_leaves_no_pin_and_an_empty_spool(
    near: Site, far: Site, tmp_path: Path
) -> None:
    await run_export(near, tmp_path / "site.hubpin")
    source = Source([tmp_path / "site.hubpin"])
    async with (
        far.mirror(OfflineUpstream(), offline=True) as mirror,
        aclosing(import_bundle(mirror, source, accept_pins=True)) as run,
    ):
        async for event in run:
            if isinstance(event, importing.Checked):
                break
    source.close()
    assert not far.config.lock.exists()
    assert not list((far.config.data / "spool").iterdir())


async def test_importing_twice_changes_nothing(near: Site, far: Site, tmp_path: Path) -> None:
    await run_export(near, tmp_path / "site.hubpin")
    await run_import(far, tmp_path / "site.hubpin")
    lock, inodes = far.config.lock.read_bytes(), _inodes(far)
    finished = result(await run_import(far, tmp_path / "site.hubpin"))
    assert (finished.taken_files, finished.held_files, finished.pins) == (0, 4, 0)
    assert (far.config.lock.read_bytes(), _inodes(far)) == (lock, inodes)


async def test_a_dry_run_checks_everything_and_changes_nothing(
    near: Site, far: Site, tmp_path: Path
) -> None:
    await run_export(near, tmp_path / "site.hubpin")
    finished = result(await run_import(far, tmp_path / "site.hubpin", dry_run=True))
    assert (finished.taken_files, finished.pins, finished.pins_left) == (4, 0, 2)
    assert not far.config.lock.exists()
    assert await held(far) == set()


async def test_gc_stays_out_while_blobs_have_no_pin_yet(
    near: Site, far: Site, tmp_path: Path
) -> None:
    await run_export(near, tmp_path / "site.hubpin")
    far.config.lock.write_bytes(locks.dumps(locks.Lock()))
    source = Source([tmp_path / "site.hubpin"])
    async with (
        far.mirror(OfflineUpstream(), offline=True) as mirror,
        aclosing(import_bundle(mirror, source, accept_pins=True)) as run,
    ):
        async for event in run:
            if isinstance(event, importing.Checked) and event.done_files == 1:
                with pytest.raises(StoreError, match="import"):
                    await collect(gc(mirror))
    source.close()
    assert await served(far) == {V23: FILES, V24: NEW_FILES}


def _inodes(site: Site) -> dict[str, int]:
    files = (site.config.data / "blobs-v1").rglob("*")
    return {file.name: file.stat().st_ino for file in files if file.is_file()}
