"""import: verify a bundle, adopt its blobs, and merge its pins last, so that nothing shows before.

A blob without a pin is served to nobody, so blobs are adopted one by one as they turn out right: an
import that was stopped goes on where it was. What went wrong is found before the first pin counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

from proxy.errors import BundleInvalid, DigestMismatch, StoreError, UpstreamError
from proxy.hub.names import Digest, GitOid
from proxy.hub.wire import EPOCH
from proxy.mirror.mirror import Mirror
from proxy.pins import allowlist
from proxy.pins import lock as locks
from proxy.pins.allowlist import Allowed
from proxy.pins.lock import Delta, Entry, Lock, Pin
from proxy.tasks import blobs, bundle, intake, lockfile, warm
from proxy.tasks.bundle import Manifest
from proxy.tasks.intake import Intake
from proxy.tasks.volumes import Source


@dataclass(frozen=True, slots=True)
class Opened:
    """The manifest makes sense."""

    name: str
    tool: str
    pairs: int
    files: int  # that the bundle brings
    bytes: int


@dataclass(frozen=True, slots=True)
class Same:
    """The lock has this pin already."""

    pin: Pin


@dataclass(frozen=True, slots=True)
class New:
    """The lock does not have this pair."""

    pin: Pin


@dataclass(frozen=True, slots=True)
class Moved:
    """The lock has this pair with another commit or other files."""

    old: Pin
    pin: Pin
    delta: Delta
    back: bool  # to an older commit


@dataclass(frozen=True, slots=True)
class Reading:
    """The pins were judged; the blobs are read."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Checked:
    """How far the work is. Bytes of blobs that were left out count as done."""

    entry: Entry
    entry_bytes: int
    done_files: int
    done_bytes: int


@dataclass(frozen=True, slots=True)
class NotAllowed:
    """A pair of the bundle is not on the allowlist: locked or not, it is not served."""

    allowed: Allowed  # how it is allowed where it comes from


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event."""

    taken_files: int
    taken_bytes: int
    held_files: int  # held before, and not written again
    left_files: int  # belong to pins that nobody accepted
    pins: int  # that were merged into the lock
    pins_left: int  # new or moved, and not merged
    dry_run: bool


Change = Same | New | Moved
Event = Opened | Change | Reading | Checked | NotAllowed | Finished


async def import_bundle(
    mirror: Mirror,
    source: Source,
    *,
    accept_pins: bool = False,
    force: bool = False,
    dry_run: bool = False,
) -> AsyncGenerator[Event]:
    """Take a bundle in. Blobs that no pin of our lock needs come only with `accept_pins`.

    `force` lets a pin go back to an older commit. A dry run reads and hashes everything and writes
    nothing. Raises: BundleInvalid, DigestMismatch, StoreError, StoreFull, UpstreamError (a pin
    would go back), ConfigError.
    """
    manifest = await asyncio.to_thread(bundle.read_manifest, source)
    yield Opened(
        source.name,
        manifest.tool,
        len(manifest.lock.pins),
        len(manifest.blobs),
        sum(manifest.blobs.values()),
    )
    before = await lockfile.read(mirror.config.lock)
    changes = [_change(source.name, pin, before) for pin in manifest.lock.pins.values()]
    for change in changes:
        yield change
    if accept_pins and not force:
        _check_forward(source.name, changes)
    merging = [one.pin for one in changes if not isinstance(one, Same)]
    reader = _Reader(mirror, source, manifest, dry_run=dry_run)
    if accept_pins:
        await reader.check_whole(merging)
        reader.wanted = set(manifest.blobs)
    else:
        reader.wanted = before.digests() & manifest.blobs.keys()
    await reader.check_room()
    yield Reading(len(manifest.blobs), sum(manifest.blobs.values()))
    async with AsyncExitStack() as stack:
        if not dry_run:
            # The blobs have no pin until the end: gc must not run in between.
            await stack.enter_async_context(mirror.publishing())
        async with aclosing(reader.read()) as events:
            async for event in events:
                yield event
        await reader.check_oids(merging if accept_pins or dry_run else ())
        merged = accept_pins and not dry_run
        if merged:
            await lockfile.merge(mirror.config.lock, merging, instead_of=before)
    served = await asyncio.to_thread(allowlist.load, mirror.config.allowlist)
    for allowed in _allowed(manifest):
        if served.get(allowed.pair) is None:
            yield NotAllowed(allowed)
    yield Finished(
        taken_files=reader.taken,
        taken_bytes=reader.taken_bytes,
        held_files=reader.held,
        left_files=len(manifest.blobs) - len(reader.wanted),
        pins=len(merging) if merged else 0,
        pins_left=0 if merged else len(merging),
        dry_run=dry_run,
    )


# --- pins ----------------------------------------------------------------------------------------


def _change(bundle_name: str, pin: Pin, before: Lock) -> Change:
    old = before.pins.get(pin.pair)
    if old is None:
        return New(pin)
    if old.commit == pin.commit:
        _check_same(bundle_name, old, pin)
        if old.files.keys() == pin.files.keys():
            return Same(old)
    back = EPOCH not in (old.date, pin.date) and pin.date < old.date
    return Moved(old, pin, locks.diff(old.files, pin.files), back)


def _check_same(bundle_name: str, old: Pin, new: Pin) -> None:
    """A commit cannot change: who lists other bytes for it than our lock does is lying."""
    for path, entry in new.files.items():
        before = old.files.get(path)
        if before is not None and (before.digest, before.git_oid, before.lfs) != (
            entry.digest, entry.git_oid, entry.lfs,
        ):  # fmt: skip
            raise BundleInvalid(
                bundle_name, f"{old.pair} {path}: it lists other bytes for the commit we have"
            )


def _check_forward(bundle_name: str, changes: Iterable[Change]) -> None:
    for change in changes:
        if isinstance(change, Moved) and change.back:
            raise UpstreamError(
                bundle_name,
                f"{change.pin.pair} would go back from {change.old.commit[:12]} "
                f"({change.old.date}) to {change.pin.commit[:12]} ({change.pin.date}); "
                "--force does it",
            )


def _allowed(manifest: Manifest) -> list[Allowed]:
    """How each pair of the bundle is allowed where it comes from."""
    said = {one.pair: one for one in manifest.allowed}
    return [
        said.get(pin.pair)
        or Allowed(pin.repo, pin.revision, 0, include=pin.include, exclude=pin.exclude)
        for pin in manifest.lock.pins.values()
    ]


# --- blobs ---------------------------------------------------------------------------------------


class _Reader:
    """Reads the members of a bundle in order, and adopts those that are wanted."""

    def __init__(
        self, mirror: Mirror, source: Source, manifest: Manifest, *, dry_run: bool
    ) -> None:
        self._mirror = mirror
        self._source = source
        self._manifest = manifest
        self._dry_run = dry_run
        self._entries = manifest.entries
        self._oids: dict[Digest, GitOid] = {}  # of what was read
        self.wanted: set[Digest] = set()
        self.taken = self.taken_bytes = self.held = 0

    async def check_whole(self, pins: Iterable[Pin]) -> None:
        """Raises: StoreError, if blobs of these pins are neither in the bundle nor held."""
        absent = [
            entry
            for entry in blobs.entries(pins)
            if entry.digest not in self._manifest.blobs and not await self._mirror.cache.held(entry)
        ]
        if absent:
            raise StoreError(
                f"{self._source.name} was made to follow an earlier bundle (--since), and "
                f"{len(absent)} files that it leaves out are not held here: "
                f"{blobs.names(absent)}. Import the earlier one first"
            )

    async def check_room(self) -> None:
        """Raises: StoreFull."""
        missing = [
            self._entries[digest][0]
            for digest in self.wanted
            if not await self._mirror.cache.held(self._entries[digest][0])
        ]
        await asyncio.to_thread(warm.check_room, self._mirror, missing)

    async def read(self) -> AsyncGenerator[Checked]:
        """Raises: BundleInvalid, DigestMismatch, StoreError."""
        done_bytes = 0
        for number, (digest, size) in enumerate(self._manifest.blobs.items()):
            entry = self._entries[digest][0]
            if await self._needs(entry):
                async with aclosing(self._take(entry)) as events:
                    async for have in events:
                        yield Checked(entry, have, number, done_bytes + have)
            else:
                await asyncio.to_thread(self._skip, entry)
            done_bytes += size
            yield Checked(entry, size, number + 1, done_bytes)
        await asyncio.to_thread(bundle.read_end, self._source)

    async def _needs(self, entry: Entry) -> bool:
        """Whether the member's bytes have to be read."""
        if self._dry_run:
            return True
        if entry.digest not in self.wanted:
            return False
        if await self._mirror.cache.held(entry):
            self.held += 1
            return False
        return True

    async def _take(self, entry: Entry) -> AsyncGenerator[int]:
        """Hash a member's bytes and adopt them if they are right; yields how many were read."""
        small = any(not one.lfs for one in self._entries[entry.digest])
        copy = Intake(None if self._dry_run else self._mirror.spool, entry.size if small else None)
        try:
            # A small file costs two hops to a thread, this one and the store's.
            await asyncio.to_thread(self._begin, copy, entry)
            while copy.size < entry.size:
                yield copy.size
                await asyncio.to_thread(self._copy, copy, entry)
            if copy.digest != entry.digest:
                raise DigestMismatch(
                    f"{self._source.name}: {entry.repo} {entry.path}", entry.digest, copy.digest
                )
            if copy.oid is not None:
                self._oids[entry.digest] = copy.oid
            if copy.path is not None:
                await self._mirror.store.adopt(entry.digest, copy.path)
            self.taken += 1
            self.taken_bytes += entry.size
        finally:
            copy.close()

    def _read_header(self, entry: Entry) -> str:
        name = bundle.blob_name(entry.digest)
        said = bundle.read_header(self._source, name)
        if said != entry.size:
            raise BundleInvalid(
                self._source.name, f"{name} has {said} bytes, its manifest says {entry.size}"
            )
        return name

    def _skip(self, entry: Entry) -> None:
        name = self._read_header(entry)
        self._source.skip(entry.size)
        bundle.read_padding(self._source, entry.size, name)

    def _begin(self, copy: Intake, entry: Entry) -> None:
        self._read_header(entry)
        self._copy(copy, entry)

    def _copy(self, copy: Intake, entry: Entry) -> None:
        """The next run of bytes, and what follows the last one."""
        stop = min(entry.size, copy.size + intake.RUN)
        while copy.size < stop:
            piece = self._source.read(min(intake.PIECE, stop - copy.size))
            if not piece:
                raise BundleInvalid(
                    self._source.name,
                    f"it is cut short in {entry.repo} {entry.path}{self._source.hint}",
                )
            copy.add(piece)
        if copy.size == entry.size:
            bundle.read_padding(self._source, entry.size, bundle.blob_name(entry.digest))

    async def check_oids(self, pins: Iterable[Pin]) -> None:
        """Small files must be what git calls them.

        `lock` believes our pins when a small file of another repository has the same git id
        (tasks/lock.py, _known): a pin with a wrong one would put its bytes there. Raises:
        BundleInvalid, StoreError.
        """
        for pin in pins:
            for entry in pin.files.values():
                if entry.lfs:
                    continue
                oid = self._oids.get(entry.digest)
                if oid is None:
                    oid = await asyncio.to_thread(self._held_oid, entry)
                    if oid is None:  # a dry run: check_whole asks for it when it counts
                        continue
                    self._oids[entry.digest] = oid
                if oid != entry.git_oid:
                    raise BundleInvalid(
                        self._source.name,
                        f"{pin.pair} {entry.path}: git calls these bytes {oid}, "
                        f"not {entry.git_oid}",
                    )

    def _held_oid(self, entry: Entry) -> GitOid | None:
        file = self._mirror.store.open(entry.digest)
        if file is None:
            return None
        with file:
            return intake.git_oid(file, entry.size)
