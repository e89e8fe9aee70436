"""lock: resolve what the allowlist names to commits and bytes, and freeze them.

A pair that is locked is never moved, unless the caller names it in `update`. Each pair is saved as
soon as it is done, so that one that fails does not cost the others.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

from proxy.errors import (
    ConfigError,
    DigestMismatch,
    MirrorError,
    RepoNotAllowed,
    RevisionNotAllowed,
    UpstreamError,
)
from proxy.hub.names import Digest, GitOid, Pair
from proxy.hub.wire import EPOCH, Json, RepoInfo, TreeEntry
from proxy.mirror.mirror import Mirror
from proxy.pins import allowlist
from proxy.pins import lock as locks
from proxy.pins.allowlist import Allowed, Allowlist
from proxy.pins.lock import Delta, Entry, Lock, Pin
from proxy.tasks import lockfile, smallfile
from proxy.tasks.resolve import Pause, read_tree, resolve
from proxy.upstream.base import Upstream

DOWNLOADS = 8  # small files at a time
# What the Hub says about a repository and changes while its commits stay the same.
_RESTLESS = frozenset(
    {
        "downloadsAllTime", "evalResults", "inference", "inferenceProviderMapping",
        "securityRepoStatus", "spaces", "trendingScore", "usedStorage",
    }
)  # fmt: skip
# Counters that old clients insist on (huggingface_hub 0.20, hf_api.py, ModelInfo).
_COUNTERS = ("downloads", "likes")


@dataclass(frozen=True, slots=True)
class Resolving:
    """The authorities are being asked what a pair means."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that a human should look at; the work goes on."""

    pair: Pair
    message: str


@dataclass(frozen=True, slots=True)
class Reading:
    """Progress with the files of a pair whose sha256 nobody publishes."""

    pair: Pair
    done_files: int
    total_files: int
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Locked:
    """A pair is frozen and saved. `old` is what it was locked to before, if it was."""

    pair: Pair
    pin: Pin
    old: Pin | None = None
    delta: Delta | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """A pair was locked already and stays as it is."""

    pair: Pair
    pin: Pin


@dataclass(frozen=True, slots=True)
class Dropped:
    """A pin whose pair is not on the allowlist any more is forgotten."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class Failed:
    """A pair is not locked, or not moved; what it was locked to before still holds."""

    pair: Pair
    error: MirrorError


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event."""

    locked: int
    kept: int
    failed: int


Event = Resolving | Warned | Reading | Locked | Kept | Failed | Finished


async def lock(
    mirror: Mirror,
    *,
    only: Collection[Pair] | None = None,
    update: Collection[Pair] = (),
    force: bool = False,
    pause: Pause = asyncio.sleep,
) -> AsyncGenerator[Event]:
    """Lock what is unlocked, re-read what has another filter, move what is in `update`.

    `only` limits the work to these pairs; `force` lets an update go back in time. Raises:
    ConfigError, Refused (a pair to update is not on the allowlist).
    """
    wanted = await asyncio.to_thread(allowlist.load, mirror.config.allowlist)
    for pair in update:
        _check_allowed(wanted, pair)
    locked, kept, failed = 0, 0, 0
    for allowed in wanted.allowed:
        if only is not None and allowed.pair not in only:
            continue
        moving = allowed.pair in update
        try:
            async with aclosing(
                _lock_one(mirror, allowed, moving=moving, force=force, pause=pause)
            ) as events:
                async for event in events:
                    locked += isinstance(event, Locked)
                    kept += isinstance(event, Kept)
                    yield event
        except MirrorError as e:
            failed += 1
            yield Failed(allowed.pair, e)
    yield Finished(locked, kept, failed)


async def prune(mirror: Mirror) -> AsyncGenerator[Dropped]:
    """Forget pins whose pair is not on the allowlist any more. Raises: ConfigError, StoreError."""
    wanted = await asyncio.to_thread(allowlist.load, mirror.config.allowlist)
    held = await lockfile.read(mirror.config.lock)
    stale = sorted(held.pins.keys() - {one.pair for one in wanted.allowed})
    if stale:
        await lockfile.drop(mirror.config.lock, stale)
    for pair in stale:
        yield Dropped(pair)


def _check_allowed(wanted: Allowlist, pair: Pair) -> None:
    if wanted.get(pair) is None:
        others = wanted.of(pair.repo)
        if not others:
            raise RepoNotAllowed(pair.repo)
        raise RevisionNotAllowed(pair.repo, pair.revision, [one.revision for one in others])


async def _lock_one(
    mirror: Mirror, allowed: Allowed, *, moving: bool, force: bool, pause: Pause
) -> AsyncGenerator[Event]:
    pair = allowed.pair
    held = await lockfile.read(mirror.config.lock)  # again: others may have locked meanwhile
    old = held.pins.get(pair)
    same_filters = old is not None and allowed.fits(old)
    if old is not None and same_filters and not moving:
        yield Kept(pair, old)
        return
    yield Resolving(pair)
    if old is None or moving:
        answer = await resolve(mirror.authorities, pair, pause=pause)
        for name, commit in answer.dissent:
            yield Warned(pair, disagreement(pair, answer.upstream.name, answer.info, name, commit))
        if old is not None and same_filters and old.commit == answer.info.commit:
            yield Kept(pair, old)
            return
        _check_move(mirror.config.allowlist, allowed, answer.info, answer.upstream.name)
        if old is not None and not force:
            _check_forward(old, answer.info, answer.upstream.name)
        pin = _pin(allowed, answer.info, answer.upstream.name, old)
        readers: Sequence[Upstream] = [answer.upstream]
    else:
        pin = replace(old, include=allowed.include, exclude=allowed.exclude, denied=allowed.denied)
        # Who said what the revision means is asked first for what is in it.
        readers = sorted(mirror.authorities, key=lambda one: one.name != old.upstream)
    listed = await read_tree(readers, pin.repo, pin.commit, pause=pause)
    tree = [file for file in listed if allowed.admits(file.path)]
    if not tree:
        yield Warned(pair, "no file of it passes its include and exclude patterns, and formats")
    known = _known(held)
    # The blobs that are published here have no pin until `save`: gc must not run in between.
    async with mirror.publishing():
        async with aclosing(_read_small(mirror, pair, tree, known, pause)) as events:
            async for event in events:
                yield event
        pin = replace(pin, files=_entries(tree, known, old))
        if old is not None and old.commit == pin.commit:
            _check_same(old, pin)
        saved = await lockfile.save(mirror.config.lock, pin, instead_of=old)
    if saved is not pin and saved != pin:
        yield Kept(pair, saved)
        return
    delta = locks.diff(old.files, pin.files) if old is not None else None
    yield Locked(pair, pin, old, delta)


def disagreement(pair: Pair, first: str, info: RepoInfo, other: str, commit: str) -> str:
    return (
        f"{first} says that {pair.revision} is {info.commit[:12]}, {other} says {commit[:12]}: "
        "one of them is stale. The first one decides; their order is in hubpin.yaml"
    )


def _check_move(file: Path, allowed: Allowed, info: RepoInfo, upstream: str) -> None:
    if info.restricted and not allowed.share_lan:
        raise ConfigError(
            file,
            allowed.line,
            f"{allowed.repo} is {info.restricted} on {upstream}. This mirror would open it to "
            "everyone who reaches it; if that is right, write the entry in the long form with "
            "`share: lan`",
        )


def _check_forward(old: Pin, info: RepoInfo, upstream: str) -> None:
    if EPOCH not in (old.date, info.date) and info.date < old.date:
        raise UpstreamError(
            upstream,
            f"{old.pair} would go back from {old.commit[:12]} ({old.date}) to "
            f"{info.commit[:12]} ({info.date}); --force does it",
        )


def _check_same(old: Pin, new: Pin) -> None:
    """A commit cannot change: who lists other bytes for it than before is lying."""
    for path, entry in new.files.items():
        before = old.files.get(path)
        if before is not None and before.digest != entry.digest:
            raise DigestMismatch(f"{old.pair} {path}", before.digest, entry.digest)


def _pin(allowed: Allowed, info: RepoInfo, upstream: str, old: Pin | None) -> Pin:
    return Pin(
        repo=allowed.repo,
        revision=allowed.revision,
        commit=info.commit,
        date=info.date,
        kind=info.kind,
        upstream=upstream,
        license=info.license,
        include=allowed.include,
        exclude=allowed.exclude,
        denied=allowed.denied,
        info=_steady(info.raw),
        files={},  # they follow
        extra=old.extra if old is not None else {},
    )


def _steady(raw: Json) -> Json:
    """The repository object without what changes from day to day: same commit, same lock."""
    kept = {key: value for key, value in raw.items() if key not in _RESTLESS}
    return {**kept, **dict.fromkeys(_COUNTERS, 0)}


def _known(held: Lock) -> dict[tuple[GitOid, int], Digest]:
    """The sha256 of small files that some pin has already, by what git calls them."""
    return {
        (entry.git_oid, entry.size): entry.digest
        for pin in held.pins.values()
        for entry in pin.files.values()
        if not entry.lfs
    }


async def _read_small(
    mirror: Mirror,
    pair: Pair,
    tree: Iterable[TreeEntry],
    known: dict[tuple[GitOid, int], Digest],
    pause: Pause,
) -> AsyncGenerator[Reading]:
    """Read every small file whose sha256 is not known, and add it to `known`."""
    missing = {
        (file.git_oid, file.size): file
        for file in tree
        if file.lfs is None and (file.git_oid, file.size) not in known
    }
    if not missing:
        return
    total_bytes = sum(file.size for file in missing.values())
    done_files, done_bytes = 0, 0
    gate = asyncio.Semaphore(DOWNLOADS)

    async def read(file: TreeEntry) -> TreeEntry:
        async with gate:
            known[file.git_oid, file.size] = await _adopt(mirror, file, pause)
        return file

    yield Reading(pair, 0, len(missing), 0, total_bytes)
    tasks = [asyncio.create_task(read(file), name=f"read {file.path}") for file in missing.values()]
    try:
        for task in asyncio.as_completed(tasks):
            file = await task
            done_files, done_bytes = done_files + 1, done_bytes + file.size
            yield Reading(pair, done_files, len(missing), done_bytes, total_bytes)
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _adopt(mirror: Mirror, file: TreeEntry, pause: Pause) -> Digest:
    part = mirror.spool / f"{secrets.token_hex(16)}{smallfile.SUFFIX}"
    try:
        digest = await smallfile.fetch(mirror.upstream, file, part, pause=pause)
        await mirror.store.adopt(digest, part)
    finally:
        part.unlink(missing_ok=True)
    return digest


def _entries(
    tree: Iterable[TreeEntry], known: Mapping[tuple[GitOid, int], Digest], old: Pin | None
) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for file in tree:
        digest = file.lfs if file.lfs is not None else known[file.git_oid, file.size]
        before = old.files.get(file.path) if old is not None else None
        entries[file.path] = Entry(
            repo=file.repo,
            commit=file.commit,
            path=file.path,
            size=file.size,
            digest=digest,
            git_oid=file.git_oid,
            lfs=file.lfs is not None,
            extra=before.extra if before is not None and before.digest == digest else None,
        )
    return dict(sorted(entries.items()))
