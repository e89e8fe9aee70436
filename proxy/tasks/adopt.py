"""adopt: seed the store with files that somebody has already, each verified against the lock.

What the lock does not name is not looked at. The files stay where they are.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from proxy.errors import ConfigError, StoreError
from proxy.hub.names import Digest, Pair, RepoId
from proxy.mirror.mirror import Mirror
from proxy.pins.catalog import Snapshot
from proxy.pins.lock import Entry
from proxy.tasks import blobs, intake, warm
from proxy.tasks.intake import Intake
from proxy.upstream.cachedir import opened_inside


@dataclass(frozen=True, slots=True)
class Planned:
    """What the lock needs, what of it is held, and what was found to look at."""

    files: int
    bytes: int
    held_files: int
    held_bytes: int
    found_files: int
    found_bytes: int


@dataclass(frozen=True, slots=True)
class Adopted:
    """How far one file is, and all that were found; it is ours when it has its size."""

    entry: Entry
    entry_bytes: int
    done_files: int
    done_bytes: int


@dataclass(frozen=True, slots=True)
class Mismatched:
    """A file is there, and is not what the lock says: it was not taken."""

    entry: Entry
    file: str
    problem: str


@dataclass(frozen=True, slots=True)
class Absent:
    """A file that the lock names is neither held nor there."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event."""

    adopted_files: int
    adopted_bytes: int
    held_files: int  # before
    mismatched: int
    absent: int


Event = Planned | Adopted | Mismatched | Absent | Finished


@dataclass(slots=True)
class _Wanted:
    """A blob, and where it may lie."""

    entry: Entry
    places: list[Path]


async def from_hf_cache(mirror: Mirror, root: Path) -> AsyncGenerator[Event]:
    """Take what a Hugging Face cache directory has of the locked pairs.

    A blob counts at any commit: the cache names it by its etag. Raises: ConfigError, StoreError.
    """
    found: dict[Digest, _Wanted] = {}
    for snapshot in mirror.catalog.snapshots():
        repo = root / _folder(snapshot.repo)
        for entry in snapshot.files.values():
            wanted = found.setdefault(entry.digest, _Wanted(entry, []))
            # huggingface_hub, file_download.py, hf_hub_download, draws both
            wanted.places += [
                repo / "snapshots" / snapshot.commit / entry.path,
                repo / "blobs" / entry.etag,
            ]
    async with aclosing(_adopt(mirror, root, list(found.values()))) as events:
        async for event in events:
            yield event


async def from_folder(mirror: Mirror, root: Path, pair: Pair) -> AsyncGenerator[Event]:
    """Take what a folder has of a locked pair, by path.

    Raises: Refused (it is not locked), ConfigError, StoreError.
    """
    found: dict[Digest, _Wanted] = {}
    snapshot: Snapshot
    (snapshot,) = blobs.snapshots(mirror.catalog, [pair])
    for entry in snapshot.files.values():
        found.setdefault(entry.digest, _Wanted(entry, [])).places.append(root / entry.path)
    async with aclosing(_adopt(mirror, root, list(found.values()))) as events:
        async for event in events:
            yield event


def _folder(repo: RepoId) -> str:
    return "--".join((repo.type.value, *repo.name.split("/")))


async def _adopt(mirror: Mirror, root: Path, wanted: list[_Wanted]) -> AsyncGenerator[Event]:
    if not root.is_dir():
        raise ConfigError(root, None, "there is no such folder")
    missing = [one for one in wanted if not await mirror.cache.held(one.entry)]
    there = [one for one in missing if await asyncio.to_thread(_is_there, one.places)]
    found_bytes = sum(one.entry.size for one in there)
    size = sum(one.entry.size for one in wanted)
    yield Planned(
        files=len(wanted),
        bytes=size,
        held_files=len(wanted) - len(missing),
        held_bytes=size - sum(one.entry.size for one in missing),
        found_files=len(there),
        found_bytes=found_bytes,
    )
    await asyncio.to_thread(warm.check_room, mirror, [one.entry for one in there])
    files = bytes_ = done_bytes = bad = 0
    async with mirror.publishing():
        for number, one in enumerate(there):
            problems: list[Mismatched] = []
            async with aclosing(_try(mirror, root, one, problems)) as progress:
                async for have in progress:
                    yield Adopted(one.entry, have, number, done_bytes + have)
            done_bytes += one.entry.size
            if await mirror.cache.held(one.entry):
                files, bytes_ = files + 1, bytes_ + one.entry.size
                yield Adopted(one.entry, one.entry.size, number + 1, done_bytes)
                continue
            bad += 1
            for problem in problems:
                yield problem
    looked_at = {one.entry.digest for one in there}
    absent = [one.entry for one in missing if one.entry.digest not in looked_at]
    for entry in absent:
        yield Absent(entry)
    yield Finished(files, bytes_, len(wanted) - len(missing), bad, len(absent))


def _is_there(places: Iterable[Path]) -> bool:
    return any(os.path.lexists(place) for place in places)


async def _try(
    mirror: Mirror, root: Path, wanted: _Wanted, problems: list[Mismatched]
) -> AsyncGenerator[int]:
    """Adopt the first file that is right; yields how far it is. Why others are not: `problems`."""
    entry = wanted.entry
    seen: set[str] = set()
    for place in wanted.places:
        real = os.path.realpath(place)  # a snapshot's file is a link to its blob
        if not os.path.lexists(place) or real in seen:
            continue
        seen.add(real)
        with ExitStack() as stack:
            try:
                file = await asyncio.to_thread(stack.enter_context, opened_inside(root, place))
                size = os.fstat(file.fileno()).st_size
            except OSError as e:
                problems.append(Mismatched(entry, str(place), e.strerror or str(e)))
                continue
            if size != entry.size:
                problem = f"it has {size:,} bytes, the lock says {entry.size:,}"
                problems.append(Mismatched(entry, str(place), problem))
                continue
            copy = await asyncio.to_thread(Intake, mirror.spool)
            try:
                while copy.size < entry.size and await asyncio.to_thread(_copy, copy, file, place):
                    yield copy.size
                if copy.digest == entry.digest:
                    assert copy.path is not None
                    await mirror.store.adopt(entry.digest, copy.path)
                    return
            finally:
                copy.close()
        problem = f"its bytes are {copy.digest}, the lock says {entry.digest}"
        problems.append(Mismatched(entry, str(place), problem))


def _copy(copy: Intake, file: BinaryIO, place: Path) -> bool:
    """The next run of bytes; False if there are no more."""
    before = copy.size
    try:
        while copy.size - before < intake.RUN and (piece := file.read(intake.PIECE)):
            copy.add(piece)
    except OSError as e:
        raise StoreError(f"cannot read {place}: {e.strerror or e}") from e
    return copy.size > before
