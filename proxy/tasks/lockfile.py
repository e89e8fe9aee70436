"""The one writer of allowlist.lock.

The command and a running server may both lock at the same time. Each change is made to what lies
on disk at that moment, under a lock on the directory, so that neither undoes the other's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

from proxy.errors import StoreError
from proxy.hub.names import Pair
from proxy.pins import lock as locks
from proxy.pins.lock import Lock, Pin
from proxy.tasks import files


async def read(file: Path) -> Lock:
    """What lies on disk now; an empty lock if there is none. Raises: ConfigError."""
    return await asyncio.to_thread(locks.load, file)


async def save(file: Path, pin: Pin, *, instead_of: Pin | None) -> Pin:
    """Write a pin in the place of the one it was made from; the result is the pin in force.

    If somebody else locked the pair first, theirs stays. Raises: ConfigError, and StoreError if
    the pin that was to be replaced is not the one on disk any more.
    """

    def change(lock: Lock) -> Lock:
        found = lock.pins.get(pin.pair)
        if found == instead_of:
            return lock.with_pins([pin])
        if instead_of is None:
            return lock
        raise StoreError(f"somebody else changed the lock of {pin.pair} just now; run this again")

    return (await asyncio.to_thread(_change, file, change)).pins[pin.pair]


async def merge(file: Path, pins: Collection[Pin], *, instead_of: Lock) -> None:
    """Write all of these pins, or none. Raises: ConfigError, and StoreError if one of their pairs
    is not what it was in the lock that was looked at."""

    def change(lock: Lock) -> Lock:
        for pin in pins:
            if lock.pins.get(pin.pair) != instead_of.pins.get(pin.pair):
                raise StoreError(
                    f"somebody else changed the lock of {pin.pair} just now; run this again"
                )
        return lock.with_pins(pins) if pins else lock

    await asyncio.to_thread(_change, file, change)


async def drop(file: Path, pairs: Collection[Pair]) -> None:
    """Forget pins. Raises: ConfigError, StoreError."""
    await asyncio.to_thread(_change, file, lambda lock: lock.with_pins((), dropped=pairs))


def _change(file: Path, change: Callable[[Lock], Lock]) -> Lock:
    with files.exclusive(file.parent):
        old = locks.load(file)
        new = change(old)
        if new is not old:
            files.replace(file, locks.dumps(new))
        return new
