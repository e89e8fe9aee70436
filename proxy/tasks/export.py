"""export: some pairs with their blobs as one bundle, for a site that has no link to us."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

from proxy.errors import ConfigError, DigestMismatch, StoreError
from proxy.hub.names import Digest, Pair
from proxy.mirror.mirror import Mirror
from proxy.pins.catalog import Catalog, Snapshot
from proxy.pins.lock import Entry, Lock
from proxy.tasks import blobs, bundle, volumes, warm
from proxy.tasks.bundle import Manifest
from proxy.tasks.volumes import Sink, Source

_FINGERPRINT = re.compile(r"(?:sha256:)?([0-9a-f]{8,64})")
_STEP = 16 << 20  # bytes between two words about one file


@dataclass(frozen=True, slots=True)
class Writing:
    """What is written. `known_*` is left out, because the other side has it."""

    pairs: int
    files: int
    bytes: int
    known_files: int
    known_bytes: int
    archive_bytes: int  # with headers and the manifest


@dataclass(frozen=True, slots=True)
class Wrote:
    """How far one blob is, and all of them together; it is complete when it has its size."""

    entry: Entry
    entry_bytes: int
    done_files: int
    done_bytes: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event: the bundle is complete and durable."""

    files: int
    bytes: int
    archive_bytes: int
    written: tuple[str, ...]  # names of files


Event = warm.Event | Writing | Wrote | Finished


async def known(mirror: Mirror, since: str) -> frozenset[Digest]:
    """Blobs that the other side has: those of an earlier bundle, or of the pair with a fingerprint.

    A fingerprint may be cut to its first 8 digits or more. Raises: ConfigError, BundleInvalid.
    """
    file = Path(since)
    if file.exists() or volumes.existing_parts(file):
        source = Source(volumes.find([file]))
        try:
            manifest = await asyncio.to_thread(bundle.read_manifest, source)
        finally:
            source.close()
        return frozenset(manifest.lock.digests())
    return frozenset(_with_fingerprint(mirror.catalog, since))


def _with_fingerprint(catalog: Catalog, text: str) -> set[Digest]:
    match = _FINGERPRINT.fullmatch(text)
    if match is None:
        raise ConfigError("--since", None, f"{text!a} is neither a bundle nor a fingerprint")
    found = [one for one in catalog.snapshots() if one.fingerprint.hex.startswith(match[1])]
    if not found:
        raise ConfigError("--since", None, f"no locked pair has the fingerprint {text}")
    if len({one.fingerprint for one in found}) > 1:
        names = ", ".join(sorted(one.pair for one in found))
        raise ConfigError("--since", None, f"{text} fits several pairs: {names}")
    return {entry.digest for entry in found[0].files.values()}


async def export(
    mirror: Mirror,
    pairs: Iterable[Pair] | None,
    sink: Sink,
    *,
    since: Collection[Digest] = (),
    jobs: int = 4,
) -> AsyncGenerator[Event]:
    """Write these pairs (None: all), without the blobs in `since`. Missing blobs are fetched first.

    If it fails, `sink` keeps nothing. Raises: Refused, ConfigError (the sink cannot take it),
    StoreError, DigestMismatch (a blob went bad on our disk; it is in quarantine then).
    """
    found = sorted(blobs.snapshots(mirror.catalog, pairs), key=lambda one: one.pair)
    needed = blobs.entries(found)
    wanted = [entry for entry in needed if entry.digest not in since]
    manifest = _manifest(found, wanted)
    content = bundle.dumps(manifest)
    if not found:
        raise ConfigError(mirror.config.lock, None, "no pair is locked; there is nothing to export")
    if len(content) > bundle.MAX_MANIFEST:
        raise ConfigError("export", None, "so many files do not fit into one bundle; name pairs")
    size = bundle.archive_size(content, manifest.blobs)
    await asyncio.to_thread(sink.prepare, size)
    async with aclosing(_fetch(mirror, wanted, jobs)) as events:
        async for event in events:
            yield event
    bytes_ = sum(entry.size for entry in wanted)
    yield Writing(
        pairs=len(found),
        files=len(wanted),
        bytes=bytes_,
        known_files=len(needed) - len(wanted),
        known_bytes=sum(entry.size for entry in needed) - bytes_,
        archive_bytes=size,
    )
    try:
        await asyncio.to_thread(_put, sink, bundle.MANIFEST, content)
        async with aclosing(_write(mirror, wanted, sink)) as written:
            async for one in written:
                yield one
        await asyncio.to_thread(sink.write, bundle.END)
        names = await asyncio.to_thread(sink.finish)
    finally:
        sink.discard()
    yield Finished(len(wanted), bytes_, size, names)


def _manifest(found: Iterable[Snapshot], wanted: Iterable[Entry]) -> Manifest:
    # What is served, not what was locked: a filter may have been tightened since.
    pins = [
        replace(
            one.pin,
            files=dict(one.files),
            include=one.allowed.include,
            exclude=one.allowed.exclude,
            denied=(),  # what another site denies is its own to say
        )
        for one in found
    ]
    return Manifest(
        lock=Lock({pin.pair: pin for pin in pins}),
        allowed=tuple(one.allowed for one in found),
        blobs={entry.digest: entry.size for entry in wanted},
    )


async def _fetch(mirror: Mirror, wanted: list[Entry], jobs: int) -> AsyncGenerator[warm.Event]:
    missing = [entry for entry in wanted if not await mirror.cache.held(entry)]
    if not missing:
        return
    total = (len(missing), sum(entry.size for entry in missing))
    await asyncio.to_thread(warm.check_room, mirror, missing)
    yield warm.Planned(*total, 0, 0, warm.free(mirror))
    failed: list[Entry] = []
    async with aclosing(warm.fetch(mirror, missing, jobs=jobs, held=total)) as events:
        async for event in events:
            if isinstance(event, warm.Failed):
                failed.append(event.entry)
            if not isinstance(event, warm.Finished):
                yield event
    if failed:
        raise StoreError(
            f"{len(failed)} files are not held and cannot be fetched: {blobs.names(failed)}. "
            "Nothing was written"
        )


async def _write(mirror: Mirror, wanted: list[Entry], sink: Sink) -> AsyncGenerator[Wrote]:
    done_bytes = 0
    for number, entry in enumerate(wanted):
        hasher = hashlib.sha256()
        # Header and padding travel with the bytes: a small file costs one hop to a thread.
        before = bundle.header(bundle.blob_name(entry.digest), entry.size)
        written = told = 0
        async with aclosing(mirror.store.read(entry.digest, 0, entry.size)) as pieces:
            async for piece in pieces:
                written += len(piece)
                after = bundle.padding(entry.size) if written == entry.size else b""
                await asyncio.to_thread(_hash_and_write, sink, hasher, piece, (before, after))
                before = b""
                if written - told >= _STEP and written < entry.size:
                    told = written
                    yield Wrote(entry, written, number, done_bytes + written)
        if before:  # the blob is empty
            await asyncio.to_thread(sink.write, before)
        got = Digest.of_hex(hasher.hexdigest())
        if got != entry.digest:
            await mirror.cache.check(entry.digest)  # puts it into quarantine
            raise DigestMismatch(f"{entry.repo} {entry.path}", entry.digest, got)
        done_bytes += entry.size
        yield Wrote(entry, entry.size, number + 1, done_bytes)


def _hash_and_write(
    sink: Sink, hasher: hashlib._Hash, piece: bytes, around: tuple[bytes, bytes]
) -> None:
    hasher.update(piece)
    sink.write(around[0])
    sink.write(piece)
    sink.write(around[1])


def _put(sink: Sink, name: str, content: bytes) -> None:
    sink.write(bundle.header(name, len(content)))
    sink.write(content + bundle.padding(len(content)))
