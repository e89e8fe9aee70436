"""Which blobs some pairs need, each of them once, and how much of them is held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from proxy.hub.names import Digest, Pair
from proxy.mirror.mirror import Mirror
from proxy.pins.catalog import Catalog, Snapshot
from proxy.pins.lock import Entry, Pin

_SHOWN = 10  # names in a message before it is cut


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
    # At its commit there may be more than belongs to the pair.
    return [catalog.own(pair) or catalog.snapshot(pair.repo, pair.revision) for pair in pairs]


def entries(found: Iterable[Snapshot | Pin]) -> list[Entry]:
    """Every blob of these pairs, once."""
    first: dict[Digest, Entry] = {}
    for one in found:
        for entry in one.files.values():
            first.setdefault(entry.digest, entry)
    return list(first.values())


def names(files: Sequence[Entry]) -> str:
    """`org/m model.bin, org/m config.json and 3 more`"""
    shown = ", ".join(f"{one.repo} {one.path}" for one in files[:_SHOWN])
    more = len(files) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


async def count_held(mirror: Mirror) -> list[PairHeld]:
    """What is held of each locked pair. Raises: StoreError."""
    sizes = {digest: size async for digest, size in mirror.store.list()}
    result = []
    for snapshot in mirror.catalog.snapshots():
        held = [one for one in snapshot.files.values() if sizes.get(one.digest) == one.size]
        result.append(PairHeld(snapshot, len(held), sum(one.size for one in held)))
    return result
