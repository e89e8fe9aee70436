"""What every blob store must do. A backend inherits this, and gets all its tests."""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from pathlib import Path

import pytest

from proxy.errors import StoreError
from proxy.hub.names import Digest
from proxy.store.base import BlobStore

DATA = bytes(range(256)) * 9000  # more than one piece of reading
DIGEST = Digest.of_hex(hashlib.sha256(DATA).hexdigest())
OTHER = Digest.of_hex("0" * 64)


def spool(tmp_path: Path, data: bytes = DATA) -> Path:
    """A finished file, as a fill leaves it."""
    file = tmp_path / "finished.part"
    file.write_bytes(data)
    return file


async def read(store: BlobStore, start: int = 0, stop: int | None = None) -> bytes:
    async with aclosing(store.read(DIGEST, start, stop)) as pieces:
        return b"".join([piece async for piece in pieces])


async def listed(store: BlobStore) -> list[tuple[Digest, int]]:
    return sorted([one async for one in store.list()])


class BlobStoreContract:
    """Needs a fixture `store`, empty, on the same file system as `tmp_path`."""

    async def test_what_was_never_adopted_is_certainly_not_there(self, store: BlobStore) -> None:
        assert await store.size(DIGEST) is None
        assert store.open(DIGEST) is None
        assert await listed(store) == []

    async def test_reading_what_is_not_there_is_an_error(self, store: BlobStore) -> None:
        with pytest.raises(StoreError):
            await read(store)

    async def test_an_adopted_file_is_held_and_gone_from_where_it_was(
        self, store: BlobStore, tmp_path: Path
    ) -> None:
        file = spool(tmp_path)
        await store.adopt(DIGEST, file)
        assert not file.exists()
        assert await store.size(DIGEST) == len(DATA)
        assert await read(store) == DATA
        assert await listed(store) == [(DIGEST, len(DATA))]

    async def test_a_small_blob_is_loaded_whole_or_not_at_all(
        self, store: BlobStore, tmp_path: Path
    ) -> None:
        assert store.load(DIGEST, len(DATA)) is None
        await store.adopt(DIGEST, spool(tmp_path))
        assert store.load(DIGEST, len(DATA)) == DATA
        for other in (0, 1, len(DATA) - 1, len(DATA) + 1):
            assert store.load(DIGEST, other) is None

    async def test_adopting_twice_leaves_one_copy(self, store: BlobStore, tmp_path: Path) -> None:
        for _ in range(2):
            await store.adopt(DIGEST, spool(tmp_path))
        assert await listed(store) == [(DIGEST, len(DATA))]
        assert await read(store) == DATA

    async def test_an_empty_blob_is_a_blob(self, store: BlobStore, tmp_path: Path) -> None:
        empty = Digest.of_hex(hashlib.sha256().hexdigest())
        await store.adopt(empty, spool(tmp_path, b""))
        assert await store.size(empty) == 0

    async def test_adopting_nothing_is_an_error(self, store: BlobStore, tmp_path: Path) -> None:
        with pytest.raises(StoreError):
            await store.adopt(DIGEST, tmp_path / "nothing")
        assert await store.size(DIGEST) is None

    @pytest.mark.parametrize(
        ("start", "stop"),
        [(0, 0), (0, 1), (5, 5), (1000, 2_000_000), (len(DATA) - 1, None), (len(DATA), None)],
    )
    async def test_a_part_is_exactly_that_part(
        self, store: BlobStore, tmp_path: Path, start: int, stop: int | None
    ) -> None:
        await store.adopt(DIGEST, spool(tmp_path))
        assert await read(store, start, stop) == DATA[start:stop]

    async def test_an_open_blob_stays_readable_whatever_becomes_of_it(
        self, store: BlobStore, tmp_path: Path
    ) -> None:
        await store.adopt(DIGEST, spool(tmp_path))
        file = store.open(DIGEST)
        assert file is not None
        await store.delete(DIGEST)
        with file:
            assert file.read(len(DATA)) == DATA

    async def test_a_deleted_blob_is_not_held(self, store: BlobStore, tmp_path: Path) -> None:
        await store.adopt(DIGEST, spool(tmp_path))
        await store.delete(DIGEST)
        assert await store.size(DIGEST) is None
        assert await listed(store) == []

    async def test_deleting_what_is_not_there_is_fine(self, store: BlobStore) -> None:
        await store.delete(DIGEST)

    async def test_a_blob_in_quarantine_is_not_held(self, store: BlobStore, tmp_path: Path) -> None:
        for _ in range(3):
            await store.adopt(DIGEST, spool(tmp_path))
            await store.quarantine(DIGEST)
            assert await store.size(DIGEST) is None
            assert await listed(store) == []

    async def test_putting_aside_what_is_not_there_is_fine(self, store: BlobStore) -> None:
        await store.quarantine(DIGEST)

    async def test_confirming_a_blob_leaves_it_as_it_is(
        self, store: BlobStore, tmp_path: Path
    ) -> None:
        await store.adopt(DIGEST, spool(tmp_path))
        await store.confirm(DIGEST)
        assert await read(store) == DATA

    async def test_confirming_what_is_not_there_is_an_error(self, store: BlobStore) -> None:
        with pytest.raises(StoreError):
            await store.confirm(DIGEST)

    async def test_one_blob_is_not_another(self, store: BlobStore, tmp_path: Path) -> None:
        await store.adopt(DIGEST, spool(tmp_path))
        assert await store.size(OTHER) is None
        await store.delete(OTHER)
        assert await store.size(DIGEST) == len(DATA)
