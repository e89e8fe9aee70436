"""lock --check: what is not locked, and what moved upstream since. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass

from proxy.errors import MirrorError, UpstreamMissing
from proxy.hub.names import CommitSha, Pair
from proxy.mirror.mirror import Mirror
from proxy.pins import allowlist
from proxy.pins.lock import Pin
from proxy.tasks import lockfile
from proxy.tasks.lock import Warned, disagreement
from proxy.tasks.resolve import Pause, resolve


@dataclass(frozen=True, slots=True)
class Unlocked:
    """On the allowlist, and nobody locked it."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class FilterChanged:
    """Its include or exclude patterns are not those that were in force when it was locked."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class Denied:
    """Files in the lock that `formats:` refuses, or would refuse."""

    pair: Pair
    paths: tuple[str, ...]
    bytes: int
    files: int  # of the pair, these included


@dataclass(frozen=True, slots=True)
class Unlisted:
    """In the lock, and not on the allowlist: it is not served."""

    pair: Pair


@dataclass(frozen=True, slots=True)
class Drifted:
    """The revision means another commit upstream; None: it is not there any more."""

    pair: Pair
    locked: CommitSha
    upstream_commit: CommitSha | None
    upstream: str  # who says so


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody could be asked whether it moved."""

    pair: Pair
    error: MirrorError


@dataclass(frozen=True, slots=True)
class InForce:
    """Locked, and the upstream means the same; not `asked`: it cannot move, or we are offline."""

    pair: Pair
    commit: CommitSha
    asked: bool


@dataclass(frozen=True, slots=True)
class Checked:
    """The last event."""

    pairs: int
    unlocked: int
    drifted: int
    filters_changed: int
    unknown: int


Event = (
    Unlocked | FilterChanged | Denied | Unlisted | Drifted | Unknown | InForce | Warned | Checked
)


async def check(
    mirror: Mirror, *, deny: Collection[str] = (), pause: Pause = asyncio.sleep
) -> AsyncGenerator[Event]:
    """Compare the allowlist with the lock, and the lock with the upstream.

    `deny` tries out endings of file names in the place of `formats:`. Raises: ConfigError.
    """
    wanted = await asyncio.to_thread(allowlist.load, mirror.config.allowlist)
    held = await lockfile.read(mirror.config.lock)
    unlocked, drifted, filters, unknown = 0, 0, 0, 0
    for allowed in wanted.allowed:
        pin = held.pins.get(allowed.pair)
        if pin is None:
            unlocked += 1
            yield Unlocked(allowed.pair)
            continue
        if not allowed.fits(pin):
            filters += 1
            yield FilterChanged(allowed.pair)
        denied = denied_of(pin, deny or wanted.denied)
        if denied is not None:
            yield denied
        async for event in _compare(mirror, pin, pause):
            drifted += isinstance(event, Drifted)
            unknown += isinstance(event, Unknown)
            yield event
    for pair in sorted(held.pins.keys() - {one.pair for one in wanted.allowed}):
        yield Unlisted(pair)
    yield Checked(len(wanted.allowed), unlocked, drifted, filters, unknown)


def denied_of(pin: Pin, deny: Collection[str]) -> Denied | None:
    """What a policy refuses of a pin; None if that is nothing."""
    hit = [one for one in pin.files.values() if allowlist.denied_ending(one.path, deny)]
    if not hit:
        return None
    paths = tuple(sorted(one.path for one in hit))
    return Denied(pin.pair, paths, sum(one.size for one in hit), len(pin.files))


async def _compare(mirror: Mirror, pin: Pin, pause: Pause) -> AsyncGenerator[Event]:
    if pin.revision.commit is not None or mirror.config.offline:
        yield InForce(pin.pair, pin.commit, asked=False)
        return
    try:
        answer = await resolve(mirror.authorities, pin.pair, pause=pause)
    except UpstreamMissing as e:
        yield Drifted(pin.pair, pin.commit, None, e.upstream)
        return
    except MirrorError as e:
        yield Unknown(pin.pair, e)
        return
    for name, commit in answer.dissent:
        message = disagreement(pin.pair, answer.upstream.name, answer.info, name, commit)
        yield Warned(pin.pair, message)
    if answer.info.commit == pin.commit:
        yield InForce(pin.pair, pin.commit, asked=True)
    else:
        yield Drifted(pin.pair, pin.commit, answer.info.commit, answer.upstream.name)
