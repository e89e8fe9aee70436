"""Which blobs some pairs need, each of them once, and how much of them is held."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from proxy.hub.names import Digest, Pair
from proxy.mirror.mirror import Mirror
from proxy.pins.catalog import Catalog, Snapshot
from proxy.pins.lock import Entry


@dataclass(frozen=True, slots=True)
class PairHeld:
    """A locked pair, and what this mirror holds of it."""

    snapshot: Snapshot
    held_files: int
    held_bytes: int


def snapshots(catalog: Catalog, pairs: Iterable[Pair] | None) -> list[Snapshot]:
    """The locked pairs; None: all of them. Raises: Refused, for one that cannot be served."""
    if pairs is None:
        return list(catalog.snapshots())
    return [catalog.snapshot(pair.repo, pair.revision) for pair in pairs]


def entries(found: Iterable[Snapshot]) -> list[Entry]:
    """Every blob of these pairs, once."""
    unique: dict[Digest, Entry] = {}
    for snapshot in found:
        for entry in snapshot.files.values():
            unique.setdefault(entry.digest, entry)
    return list(unique.values())


async def count_held(mirror: Mirror) -> list[PairHeld]:
    """What is held of each locked pair. Raises: StoreError."""
    sizes = {digest: size async for digest, size in mirror.store.list()}
    result = []
    for snapshot in mirror.catalog.snapshots():
        held = [one for one in snapshot.files.values() if sizes.get(one.digest) == one.size]
        result.append(PairHeld(snapshot, len(held), sum(one.size for one in held)))
    return result
