"""verify: hash what is held and compare it with the lock."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass

from proxy.errors import BlobAltered
from proxy.hub.names import Digest, Pair
from proxy.mirror.mirror import Mirror
from proxy.pins.catalog import Snapshot
from proxy.pins.lock import Entry
from proxy.tasks import blobs, warm


@dataclass(frozen=True, slots=True)
class Planned:
    """What there is to hash."""

    files: int
    bytes: int
    missing_files: int  # needed and not held


@dataclass(frozen=True, slots=True)
class Right:
    """A blob is what the lock says."""

    entry: Entry
    done_files: int
    done_bytes: int


@dataclass(frozen=True, slots=True)
class Bad:
    """A blob was not what the lock says: it is in quarantine and is not served."""

    entry: Entry
    done_files: int
    done_bytes: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event. `repaired` counts files that were fetched again, missing ones included."""

    right: int
    bad: int
    missing: int
    repaired: int
    failed: int  # could not be fetched again


Event = Planned | Right | Bad | warm.Event | Finished


async def verify(
    mirror: Mirror, pairs: Iterable[Pair] | None = None, *, repair: bool = False, jobs: int = 4
) -> AsyncGenerator[Event]:
    """Check what is held of these pairs (None: of all).

    `repair` fetches what was bad, and what is missing of a pair that is partly held: a blob that
    an earlier check put into quarantine leaves no other trace. Raises: Refused, StoreError.
    """
    found = blobs.snapshots(mirror.catalog, pairs)
    needed = blobs.entries(found)
    here = [entry for entry in needed if await _is_here(mirror, entry)]
    yield Planned(len(here), sum(entry.size for entry in here), len(needed) - len(here))
    bad: list[Entry] = []
    done_bytes = 0
    for number, entry in enumerate(here, 1):
        right = await mirror.cache.check(entry.digest)
        done_bytes += entry.size
        if right:
            yield Right(entry, number, done_bytes)
        else:
            bad.append(entry)
            yield Bad(entry, number, done_bytes)
    missing = len(needed) - len(here)
    repaired, failed = 0, 0
    if repair:
        lost = [*bad, *_lost(found, {entry.digest for entry in here})]
        total = (len(lost), sum(entry.size for entry in lost))
        async with aclosing(warm.fetch(mirror, lost, jobs=jobs, held=total)) as events:
            async for event in events:
                if isinstance(event, warm.Finished):
                    repaired, failed = event.fetched_files, event.failed
                else:
                    yield event
    yield Finished(len(here) - len(bad), len(bad), missing, repaired, failed)


async def _is_here(mirror: Mirror, entry: Entry) -> bool:
    try:
        return await mirror.store.size(entry.digest) is not None
    except BlobAltered:
        return True


def _lost(found: Iterable[Snapshot], here: set[Digest]) -> list[Entry]:
    """What is missing of pairs of which something is here."""
    begun = [
        snapshot
        for snapshot in found
        if any(entry.digest in here for entry in snapshot.files.values())
    ]
    return [entry for entry in blobs.entries(begun) if entry.digest not in here]
