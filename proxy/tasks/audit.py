"""audit: which commits a device took, whole or in part, and what it was refused.

Read from the audit log, with the lock (and older locks, if somebody has them) for what belongs to
a pair. A file counts as taken when the spans of it that were sent add up, whichever commit they
were asked for at: a client that holds a file of the last version does not ask for it again. Spans
that nginx was told to send (`accel`) are counted apart: how much of them went, only nginx knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from proxy.errors import disk_failed
from proxy.hub.names import Digest, Pair
from proxy.mirror.extents import Extents
from proxy.mirror.mirror import Mirror
from proxy.pins import lock as locks
from proxy.pins.lock import Entry
from proxy.telemetry import audit as logs


@dataclass(frozen=True, slots=True)
class Took:
    """What a device has of one pair at one commit, as far as the log goes back."""

    device: str
    pair: str | None  # None: no lock that we were shown has this commit
    repo: str
    commit: str
    fingerprint: str | None
    files: int  # of the pair; 0 if we cannot know
    taken_files: int  # of them, from the first byte to the last
    handed_files: int  # of them, whole only if nginx sent what it was told to
    complete: bool  # all of them were taken
    at: str  # when the last byte went out, or was handed to nginx
    missing: tuple[str, ...]  # paths that it did not take, or not to the end


@dataclass(frozen=True, slots=True)
class Refused:
    """What a device asked for in vain."""

    device: str
    target: str
    error: str
    message: str
    times: int
    last: str  # when it asked last


@dataclass(frozen=True, slots=True)
class Read:
    """The last event."""

    events: int
    unreadable: int  # lines that a crash cut short, or that somebody altered
    lost: int  # events that could not be written when they happened
    since: str  # the oldest event there is; "": there is none


Event = Took | Refused | Read


class Line(msgspec.Struct, frozen=True):
    """What we need of a line of the log."""

    at: str
    event: str
    device: str = ""
    repo: str = ""
    commit: str = ""
    path: str = ""
    digest: str = ""
    size: int = 0
    start: int = 0
    stop: int = 0
    sent: int = 0
    target: str = ""
    error: str = ""
    message: str = ""
    lost: int = 0


@dataclass(slots=True)
class _Blob:
    """How much of a file one device was sent, and when the last new byte of it."""

    have: Extents = field(default_factory=Extents)
    perhaps: Extents = field(default_factory=Extents)  # with what nginx was told to send
    at: str = ""


@dataclass(slots=True)
class _Device:
    blobs: dict[str, _Blob] = field(default_factory=dict)  # by digest
    asked: dict[tuple[str, str], str] = field(default_factory=dict)  # (repo, commit) → when
    recent: set[str] = field(default_factory=set)  # digests of which bytes went out since
    refused: dict[tuple[str, str], Refused] = field(default_factory=dict)

    def note(self, line: Line, since: str) -> None:
        if line.event == "refused" and line.at >= since:
            key = line.target, line.error
            times = self.refused[key].times + 1 if key in self.refused else 1
            self.refused[key] = Refused(
                line.device, line.target, line.error, line.message, times, line.at
            )
        if line.event not in ("served", "handed"):
            return
        blob = self.blobs.setdefault(line.digest, _Blob())
        before = blob.perhaps.total
        if line.event == "served":
            blob.have.add(line.start, line.start + line.sent)
            blob.perhaps.add(line.start, line.start + line.sent)
        else:
            blob.perhaps.add(line.start, line.stop)
        if blob.perhaps.total > before or not blob.at:
            blob.at = line.at
        if line.at >= since:
            self.recent.add(line.digest)
            if line.commit:
                self.asked[line.repo, line.commit] = line.at


@dataclass(frozen=True, slots=True)
class _Pair:
    """A pair at a commit, from some lock."""

    pair: Pair
    commit: str
    fingerprint: Digest
    files: Mapping[str, Entry]


async def audit(
    mirror: Mirror, *, device: str = "", since: str = "", older: Sequence[Path] = ()
) -> AsyncGenerator[Event]:
    """About one device, or about all of them; `since` is a time as the log writes it, or its start.

    `older` are lock files from before. Raises: ConfigError (a broken lock), StoreError.
    """
    pairs = await asyncio.to_thread(_pairs, mirror, older)
    folder = mirror.config.data
    devices: dict[str, _Device] = {}
    read = await asyncio.to_thread(_read, folder, _names(folder, device), since, devices)
    for name, one in sorted(devices.items()):
        for took in _taken(name, one, pairs):
            yield took
        for refused in one.refused.values():
            yield refused
    yield read


def _pairs(mirror: Mirror, older: Sequence[Path]) -> list[_Pair]:
    """What there is to be taken, each once."""
    found: dict[tuple[str, str, str], _Pair] = {}
    for snapshot in mirror.catalog.snapshots():
        one = _Pair(snapshot.pair, snapshot.commit, snapshot.fingerprint, snapshot.files)
        found[one.pair, one.commit, one.fingerprint] = one
    held = [mirror.catalog.lock, *(locks.load(file) for file in older)]
    for pin in (pin for lock in held for pin in lock.pins.values()):
        one = _Pair(pin.pair, pin.commit, pin.fingerprint, pin.files)
        found.setdefault((one.pair, one.commit, one.fingerprint), one)
    return list(found.values())


def _names(folder: Path, device: str) -> frozenset[str] | None:
    """What the device is called in the log: its address, or what stood for it. None: any."""
    if not device:
        return None
    try:
        return frozenset({device, *logs.known_as(folder, device)})
    except OSError as e:
        raise disk_failed("read the key of the audit log", e) from e


def _read(
    folder: Path, names: frozenset[str] | None, since: str, devices: dict[str, _Device]
) -> Read:
    events = unreadable = lost = 0
    oldest = ""
    decode = msgspec.json.Decoder(Line).decode
    for text in _lines(folder):
        try:
            line = decode(text)
        except msgspec.DecodeError:
            unreadable += 1
            continue
        events += 1
        lost += line.lost
        oldest = oldest or line.at
        if line.device and (names is None or line.device in names):
            devices.setdefault(line.device, _Device()).note(line, since)
    return Read(events, unreadable, lost, oldest)


def _lines(folder: Path) -> Iterator[bytes]:
    try:
        for file in logs.files(folder):
            with file.open("rb") as lines:
                yield from (line for line in lines if line.strip())
    except OSError as e:
        raise disk_failed("read the audit log", e) from e


def _taken(name: str, device: _Device, pairs: Iterable[_Pair]) -> Iterator[Took]:
    known = set()
    found: dict[tuple[str, str], list[Took]] = {}
    for one in pairs:
        key = (str(one.pair.repo), one.commit)
        took = _took(name, device, one)
        news = any(entry.digest in device.recent for entry in one.files.values())
        if key in device.asked:
            known.add(key)
        if key in device.asked or (news and not took.missing and one.files):
            found.setdefault((one.pair, one.commit), []).append(took)
    for ones in found.values():  # of two filters of one pair, what was taken whole tells more
        whole = [took for took in ones if not took.missing]
        yield from whole or ones[:1]
    for (repo, commit), at in device.asked.items():
        if (repo, commit) not in known:
            yield Took(name, None, repo, commit, None, 0, 0, 0, complete=False, at=at, missing=())


def _took(name: str, device: _Device, one: _Pair) -> Took:
    missing = []
    handed = 0
    at = ""
    for path, entry in one.files.items():
        blob = device.blobs.get(entry.digest)
        if blob is not None and blob.perhaps.total >= entry.size:
            handed += blob.have.total < entry.size
            at = max(at, blob.at)
        elif entry.size:  # of an empty file there is nothing to take
            missing.append(path)
    whole = len(one.files) - len(missing) - handed
    return Took(
        name, one.pair, one.pair.repo, one.commit, one.fingerprint, len(one.files), whole, handed,
        complete=not missing and not handed and bool(one.files),
        at=at or device.asked.get((one.pair.repo, one.commit), ""), missing=tuple(sorted(missing)),
    )  # fmt: skip
