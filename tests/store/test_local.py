"""Blobs as files: sealed, and nothing that somebody planted is taken for one."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.errors import BlobAltered, StoreError
from proxy.store.local import LocalStore
from tests.store.contract import DATA, DIGEST, BlobStoreContract, listed, read, spool


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root)


@pytest.fixture
async def blob(store: LocalStore, root: Path, tmp_path: Path) -> Path:
    """Where the one blob lies."""
    await store.adopt(DIGEST, spool(tmp_path))
    return root / "blobs-v1" / "sha256" / DIGEST.hex[:2] / DIGEST.hex


class TestLocalStore(BlobStoreContract):
    @pytest.fixture
    def store(self, root: Path) -> LocalStore:
        return LocalStore(root)


def test_a_blob_lies_under_its_digest_and_nobody_may_write_it(blob: Path) -> None:
    assert blob.read_bytes() == DATA
    assert stat.S_IMODE(blob.stat().st_mode) == 0o444


async def test_a_store_that_was_closed_and_opened_holds_the_same(blob: Path, root: Path) -> None:
    again = LocalStore(root)
    assert await again.size(DIGEST) == len(DATA)
    assert await read(again) == DATA


def _altered(blob: Path) -> None:
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.write(b"!")


def _truncated(blob: Path) -> None:
    os.truncate(blob, 10)


def _linked(blob: Path) -> None:
    other = blob.with_name("other")
    blob.rename(other)
    blob.symlink_to(other)


def _piped(blob: Path) -> None:
    blob.unlink()
    os.mkfifo(blob)


def _folder(blob: Path) -> None:
    blob.unlink()
    blob.mkdir()
    (blob / "inside").touch()


def _socket(blob: Path) -> None:
    blob.unlink()
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(blob.parent)  # socket paths are short
        try:
            made.bind(blob.name[:20])
        finally:
            os.chdir(here)
    (blob.parent / blob.name[:20]).rename(blob)


PLANTED = [_altered, _truncated, _linked, _piped, _folder, _socket]


@pytest.mark.parametrize("plant", PLANTED)
async def test_what_is_not_as_it_was_adopted_is_neither_held_nor_absent(
    store: LocalStore, blob: Path, plant: Callable[[Path], None]
) -> None:
    plant(blob)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BlobAltered):
        store.open(DIGEST)
    with pytest.raises(BlobAltered):
        await store.size(DIGEST)
    assert store.load(DIGEST, len(DATA)) is None
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("plant", PLANTED)
async def test_what_was_planted_can_be_put_aside_and_replaced(
    store: LocalStore, blob: Path, tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    for _ in range(2):
        plant(blob)
        await store.quarantine(DIGEST)
        assert await store.size(DIGEST) is None
        await store.adopt(DIGEST, spool(tmp_path))
        assert await read(store) == DATA


@pytest.mark.parametrize("plant", PLANTED)
async def test_adopting_replaces_whatever_was_planted(
    store: LocalStore, blob: Path, tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    for _ in range(2):
        plant(blob)
        await store.adopt(DIGEST, spool(tmp_path))
        assert await store.size(DIGEST) == len(DATA)
        assert await read(store) == DATA


@pytest.mark.parametrize("plant", [_linked, _piped, _folder, _socket])
async def test_what_is_no_plain_file_is_neither_read_nor_confirmed(
    store: LocalStore, blob: Path, plant: Callable[[Path], None]
) -> None:
    plant(blob)
    with pytest.raises(StoreError):
        await read(store)
    with pytest.raises(StoreError):
        await store.confirm(DIGEST)


async def test_confirming_never_touches_what_a_link_points_to(
    store: LocalStore, blob: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    outside.chmod(0o640)
    before = outside.stat()
    blob.unlink()
    blob.symlink_to(outside)
    with pytest.raises(StoreError):
        await store.confirm(DIGEST)
    after = outside.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


async def test_a_confirmed_blob_is_as_good_as_adopted(store: LocalStore, blob: Path) -> None:
    os.utime(blob)  # as a backup without times restores it
    with pytest.raises(BlobAltered):
        await store.size(DIGEST)
    await store.confirm(DIGEST)
    assert await store.size(DIGEST) == len(DATA)


async def test_what_went_bad_can_be_looked_at(store: LocalStore, blob: Path, root: Path) -> None:
    _altered(blob)
    await store.quarantine(DIGEST)
    (kept,) = (root / "quarantine").iterdir()
    assert kept.read_bytes() == b"!" + DATA[1:]


async def test_nothing_in_quarantine_is_overwritten(
    store: LocalStore, blob: Path, root: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        await store.quarantine(DIGEST)
        await store.adopt(DIGEST, spool(tmp_path))
    (root / "quarantine" / f"{DIGEST.hex}.0").unlink()  # a human looked and cleaned up
    await store.quarantine(DIGEST)
    assert len(os.listdir(root / "quarantine")) == 2


async def test_files_that_are_not_ours_are_not_listed(store: LocalStore, blob: Path) -> None:
    (blob.parent / "abc").touch()
    (blob.parent / "README").touch()
    (blob.parent / ("f" * 64 if not DIGEST.hex.startswith("ff") else "0" * 64)).touch()
    (blob.parent.parent / "lost+found").mkdir()
    assert await listed(store) == [(DIGEST, len(DATA))]


async def test_a_store_that_cannot_say_does_not_say_absent(store: LocalStore, root: Path) -> None:
    (root / "blobs-v1").write_text("in the way")
    with pytest.raises(StoreError):
        await store.size(DIGEST)
    with pytest.raises(StoreError):
        store.open(DIGEST)
    with pytest.raises(StoreError):
        await listed(store)


async def test_a_failed_adoption_leaves_the_old_blob(
    store: LocalStore, blob: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoreError):
        await store.adopt(DIGEST, tmp_path / "nothing")
    assert await read(store) == DATA
