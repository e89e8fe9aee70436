"""scrub: hash every held blob again and again, slowly, to find what rots before it is asked for.

<data>/scrub.json     {"after": "<hex>", "bad": n, "rounds": n}: where to go on after a restart
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from proxy.errors import MirrorError, StoreError
from proxy.hub.names import Digest
from proxy.mirror.mirror import Mirror
from proxy.pins.lock import Entry

log = logging.getLogger(__name__)

_RATE = 32 << 20  # bytes per second at most, however far behind we are
_IDLE_S = 60.0  # between looks at an empty store
_LEAST_REST_S = 0.05


@dataclass(frozen=True, slots=True)
class Checked:
    """One blob was hashed; `right` is False if it had gone bad, `healed` if it is right again."""

    digest: Digest
    right: bool
    healed: bool
    checked: int  # blobs in this round
    total: int
    rounds: int  # that ended
    bad: int  # blobs found bad, ever


async def scrub(
    mirror: Mirror, *, cycle_s: float, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> AsyncGenerator[Checked]:
    """Check every blob once in `cycle_s`, in the order of their digests. Never ends.

    A bad blob goes into quarantine and is fetched again, if some pair needs it and an upstream has
    it. Errors of the disk are logged and do not end the round.
    """
    file = mirror.config.data / "scrub.json"
    after, bad, rounds = _read(file)
    while True:
        try:
            blobs = sorted([one async for one in mirror.store.list()])
        except StoreError as e:
            log.error("scrub: %s", e)
            blobs = []
        total_bytes = sum(size for _, size in blobs) or 1
        for number, (digest, size) in enumerate(blobs, 1):
            if digest.hex <= after:
                continue
            await pause(max(_LEAST_REST_S, cycle_s * size / total_bytes))
            right, healed = await _check(mirror, digest)
            after, bad = digest.hex, bad + (not right)
            await asyncio.to_thread(_write, file, after, bad, rounds)
            yield Checked(digest, right, healed, number, len(blobs), rounds, bad)
        after, rounds = "", rounds + bool(blobs)
        if not blobs:
            await pause(_IDLE_S)


async def _check(mirror: Mirror, digest: Digest) -> tuple[bool, bool]:
    """Whether the blob was right, and whether it is right again."""
    try:
        if await mirror.store.size(digest) is None:
            return True, False  # deleted meanwhile
    except StoreError:
        pass  # altered: that is what we are here for
    try:
        if await mirror.cache.check(digest, rate=_RATE):
            return True, False
        entry = _needed(mirror, digest)
        if entry is not None:
            await mirror.cache.hold(entry)
            return False, True
    except MirrorError as e:
        log.error("scrub: %s", e)
    return False, False


def _needed(mirror: Mirror, digest: Digest) -> Entry | None:
    for snapshot in mirror.catalog.snapshots():
        for entry in snapshot.files.values():
            if entry.digest == digest:
                return entry
    return None


def _read(file: Path) -> tuple[str, int, int]:
    """A lost or broken file costs one round from the start."""
    try:
        raw = json.loads(file.read_bytes())
        return str(raw["after"]), int(raw["bad"]), int(raw["rounds"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", 0, 0


def _write(file: Path, after: str, bad: int, rounds: int) -> None:
    temporary = file.with_suffix(".tmp")
    with suppress(OSError):  # a full disk must not end the scrub
        temporary.write_text(
            json.dumps({"after": after, "bad": bad, "rounds": rounds}), encoding="ascii"
        )
        temporary.replace(file)
