"""evict: delete blobs that were served longest ago until the store fits `max_size`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from proxy.hub.names import Digest
from proxy.mirror.mirror import Mirror

_TARGET = 0.9  # of max_size: so that the next blob does not start it again


@dataclass(frozen=True, slots=True)
class Evicted:
    """A blob was deleted; it is fetched again when somebody asks for it."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event. `over` is by how much the blobs that must stay are too many, else 0."""

    blobs: int
    freed: int
    held: int
    over: int


async def evict(mirror: Mirror, *, max_size: int) -> AsyncGenerator[Evicted | Finished]:
    """Never touches a blob of a locked pair marked `keep: true`. Raises: StoreError.

    Who reads a deleted blob reads on: open files stay readable.
    """
    blobs = [one async for one in mirror.store.list()]
    held = sum(size for _, size in blobs)
    count = freed = 0
    if held > max_size:
        kept = {
            entry.digest
            for snapshot in mirror.catalog.snapshots()
            if snapshot.allowed.keep
            for entry in snapshot.files.values()
        }
        loose = [one for one in blobs if one[0] not in kept]
        for digest, size in await asyncio.to_thread(_oldest_first, mirror, loose):
            if held - freed <= max_size * _TARGET:
                break
            await mirror.store.delete(digest)
            count, freed = count + 1, freed + size
            yield Evicted(digest, size)
    yield Finished(count, freed, held - freed, max(0, held - freed - max_size))


def _oldest_first(mirror: Mirror, blobs: list[tuple[Digest, int]]) -> list[tuple[Digest, int]]:
    return sorted(blobs, key=lambda one: (mirror.recency.last_served(one[0]), one[0]))
