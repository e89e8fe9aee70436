"""gc: delete blobs that no locked pair needs, and downloads that nobody will finish."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from proxy.errors import ConfigError, InvalidName, StoreError
from proxy.hub.names import Digest
from proxy.mirror import flock
from proxy.mirror.mirror import Mirror
from proxy.tasks import intake, lockfile, smallfile


@dataclass(frozen=True, slots=True)
class Swept:
    """A blob that no pin needs is gone (would go, in a dry run)."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class SweptPart:
    """An unfinished download that nobody will finish is gone (would go, in a dry run)."""

    name: str
    size: int  # bytes on disk


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event."""

    blobs: int
    parts: int
    freed: int  # bytes
    kept_blobs: int
    kept_bytes: int
    dry_run: bool


Event = Swept | SweptPart | Finished


async def gc(mirror: Mirror, *, dry_run: bool = False) -> AsyncGenerator[Event]:
    """Never deletes what a pin needs. Raises: ConfigError (the lock cannot be read, or there is
    none: then nothing can be known to be needless), StoreError (also while somebody locks)."""
    async with contextlib.AsyncExitStack() as stack:
        if not dry_run:
            await stack.enter_async_context(mirror.sweeping())
        file = mirror.config.lock
        if not file.exists():
            raise ConfigError(
                file, None, "there is no lock, so nothing can be known to be needless; "
                "run hubpin lock first",
            )  # fmt: skip
        # From disk, and under the gc lock: what was locked a moment ago is needed.
        needed = (await lockfile.read(file)).digests()
        blobs, parts, freed, kept, kept_bytes = 0, 0, 0, 0, 0
        for digest, size in sorted([one async for one in mirror.store.list()]):
            if digest in needed:
                kept, kept_bytes = kept + 1, kept_bytes + size
                continue
            if not dry_run:
                await mirror.store.delete(digest)
            blobs, freed = blobs + 1, freed + size
            yield Swept(digest, size)
        for path in await asyncio.to_thread(_abandoned, mirror.spool, needed):
            part_size = await asyncio.to_thread(_remove, path, dry_run=dry_run)
            if part_size is not None:
                parts, freed = parts + 1, freed + part_size
                yield SweptPart(path.name, part_size)
        yield Finished(blobs, parts, freed, kept, kept_bytes, dry_run)


def _abandoned(spool: Path, needed: set[Digest]) -> list[Path]:
    """Part files of blobs that no pin needs, and copies that a dead process left."""
    return sorted(
        path
        for path in spool.iterdir()
        if path.suffix in (smallfile.SUFFIX, intake.SUFFIX)
        or (
            path.suffix == ".part"
            and (digest := _digest(path)) is not None
            and digest not in needed
        )
    )


def _digest(path: Path) -> Digest | None:
    try:
        return Digest.of_hex(path.stem)
    except InvalidName:
        return None


def _remove(path: Path, *, dry_run: bool) -> int | None:
    """Bytes that were freed; None if somebody works on the file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None  # finished a moment ago, or nothing of ours
    try:
        if not flock.lock(fd):
            return None
        size = os.fstat(fd).st_blocks * 512
        if not dry_run:
            # The part's sidecar stays: it may say that clients were shown these bytes
            # (mirror/part.py, leftovers), and the next start of the server cleans it up.
            path.unlink(missing_ok=True)
        return size
    except OSError as e:
        raise StoreError(f"cannot delete {path}: {e.strerror or e}") from e
    finally:
        os.close(fd)
