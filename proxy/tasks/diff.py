"""diff: what changes from one locked pair to another, or to what the upstream has now.

Files by what the lock or the upstream's list says, and inside of them: see tasks/contents.py.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace

from proxy.errors import RevisionNotPinned
from proxy.hub.names import CommitSha, Digest, GitOid, Pair
from proxy.hub.wire import TreeEntry
from proxy.mirror.mirror import Mirror
from proxy.pins import allowlist
from proxy.pins import lock as locks
from proxy.pins.allowlist import Allowed
from proxy.pins.lock import Delta, Entry, Lock, Pin
from proxy.tasks import contents, lockfile
from proxy.tasks.contents import Contents
from proxy.tasks.resolve import Pause, read_tree, resolve


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison."""

    name: str  # a pair, or an upstream
    commit: CommitSha
    date: str
    license: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Compared:
    """What changes from `old` to `new`. Compare its entries by etag: see `_stand_in`."""

    old: Side
    new: Side
    delta: Delta
    contents: Contents = field(default_factory=Contents)


@dataclass(frozen=True, slots=True)
class Asking:
    """An upstream is being asked."""

    pair: Pair


Event = Asking | Compared


async def diff(
    mirror: Mirror, old: Pair, new: Pair | None, *, pause: Pause = asyncio.sleep
) -> AsyncGenerator[Event]:
    """From `old` to `new`; None is what `lock --update` would move `old` to.

    Raises: MirrorError; RevisionNotPinned, if a pair is not in the lock.
    """
    held = await lockfile.read(mirror.config.lock)
    before = _get(held, old)
    if new is None:
        yield Asking(old)
        compared = await _with_upstream(mirror, before, pause)
    else:
        after = _get(held, new)
        delta = locks.diff(before.files, after.files)
        compared = Compared(_side(before), _side(after), delta)
    yield replace(compared, contents=await contents.compare(mirror, compared.delta))


def _get(held: Lock, pair: Pair) -> Pin:
    pin = held.pins.get(pair)
    if pin is None:
        raise RevisionNotPinned(pair.repo, pair.revision)
    return pin


def _side(pin: Pin) -> Side:
    size = sum(entry.size for entry in pin.files.values())
    return Side(str(pin.pair), pin.commit, pin.date, pin.license, len(pin.files), size)


async def _with_upstream(mirror: Mirror, pin: Pin, pause: Pause) -> Compared:
    wanted = await asyncio.to_thread(allowlist.load, mirror.config.allowlist)
    allowed = wanted.get(pin.pair) or Allowed(
        pin.repo, pin.revision, 0, include=pin.include, exclude=pin.exclude, denied=pin.denied
    )
    answer = await resolve(mirror.authorities, pin.pair, pause=pause)
    info = answer.info
    tree = await read_tree([answer.upstream], pin.repo, info.commit, pause=pause)
    known = {(one.git_oid, one.size): one.digest for one in pin.files.values() if not one.lfs}
    files: dict[str, Entry] = {
        file.path: _entry(file, known) for file in tree if allowed.admits(file.path)
    }
    size = sum(entry.size for entry in files.values())
    name = f"{pin.pair} on {answer.upstream.name}"
    side = Side(name, info.commit, info.date, info.license, len(files), size)
    return Compared(_side(pin), side, locks.diff(pin.files, files))


def _entry(file: TreeEntry, known: Mapping[tuple[GitOid, int], Digest]) -> Entry:
    digest = file.lfs or known.get((file.git_oid, file.size)) or _stand_in(file.git_oid)
    return Entry(
        file.repo, file.commit, file.path, file.size, digest, file.git_oid, file.lfs is not None
    )


def _stand_in(oid: GitOid) -> Digest:
    """Something to compare by, for a small file that nobody has read yet.

    It is no digest of any bytes: it tells two files apart, and must not be shown or kept.
    """
    return Digest.of_hex(hashlib.sha256(f"git:{oid}".encode()).hexdigest())
