"""doctor: looks at everything that a mirror needs, and says what to do about what it finds.

It changes nothing, but for one file that a client downloads from the running server.
"""

from __future__ import annotations

import asyncio
import enum
import importlib.util
import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from proxy.config import Config
from proxy.errors import ConfigError, MirrorError, StoreError, UpstreamForbidden, UpstreamMissing
from proxy.hub.names import Pair
from proxy.pins import allowlist as allowlists
from proxy.pins import catalog as catalogs
from proxy.pins import lock as locks
from proxy.pins.catalog import Catalog, Snapshot
from proxy.pins.lock import Entry
from proxy.store.local import LocalStore
from proxy.tasks import demo_stage as stage
from proxy.tasks import instance, ports
from proxy.upstream.probe import Probe, probe

SKEW_S = 300.0  # that a clock may be off; TLS and signed URLs bear about so much
_READY_S = 5.0
_STATUS_S = 30.0  # it counts what is held
_CLIENT_S = 60.0
_SHOWN = 5  # pairs in one line
_CLIENT = "huggingface_hub"
# Prints the client's version and the digest of what it got.
_ROUND_TRIP = """
import hashlib, sys
from huggingface_hub import __version__, hf_hub_download
kind, repo, revision, path = sys.argv[1:]
with open(hf_hub_download(repo, path, repo_type=kind, revision=revision), "rb") as file:
    print(__version__, hashlib.file_digest(file, "sha256").hexdigest())
"""
_GOT = re.compile(r"^(\S+) ([0-9a-f]{64})$", re.MULTILINE)


class Verdict(enum.StrEnum):
    OK = "ok"
    SKIP = "skip"  # could not be looked at, and that is no fault
    WARN = "warn"  # it works, and not as it should
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Checked:
    """One thing was looked at."""

    verdict: Verdict
    what: str
    found: str
    advice: str = ""  # what to do about it


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event."""

    failed: int
    warned: int


Event = Checked | Finished
Load = Callable[[], Config]
Device = Callable[[str], Mapping[str, str]]


async def doctor(
    load: Load, device: Device, *, now: Callable[[], float] = time.time
) -> AsyncGenerator[Event]:
    """Look at the site whose configuration `load` reads (it may raise ConfigError).

    `device` is the environment with which a device uses the mirror at a URL. Never raises
    MirrorError: what is broken is an event.
    """
    count = dict.fromkeys(Verdict, 0)
    async with aclosing(_all(load, device, now)) as found:
        async for one in found:
            count[one.verdict] += 1
            yield one
    yield Finished(count[Verdict.FAIL], count[Verdict.WARN])


async def _all(load: Load, device: Device, now: Callable[[], float]) -> AsyncGenerator[Checked]:
    try:
        config = load()
    except ConfigError as e:
        advice = "correct it there; without it nothing else can be looked at"
        yield Checked(Verdict.FAIL, "configuration", str(e), advice)
        return
    said = str(config.file) if config.file else "there is no hubpin.yaml: the defaults hold"
    yield Checked(Verdict.OK, "configuration", said)
    catalog, found = await asyncio.to_thread(_pins, config)
    for one in found:
        yield one
    for one in await asyncio.to_thread(lambda: [*_data(config)]):
        yield one
    allowed = catalog.allowlist.allowed
    probes = await _ask(config, allowed[0].pair if allowed else None)
    asked_at = now()
    for one in _upstreams(config, probes):
        yield one
    yield await asyncio.to_thread(_clock, config, probes, asked_at)
    serves, port = await asyncio.to_thread(_port, config)
    yield port
    yield await _client(config, catalog, device, serves=serves)


# --- files ---------------------------------------------------------------------------------------


def _pins(config: Config) -> tuple[Catalog, list[Checked]]:
    """What may be served, as far as it can be read."""
    found: list[Checked] = []
    wanted, held = allowlists.Allowlist(), locks.Lock()
    try:
        wanted = allowlists.load(config.allowlist)
        if wanted.allowed:
            said = f"{config.allowlist}: {len(wanted.allowed)} pairs"
            found.append(Checked(Verdict.OK, "allowlist", said))
        else:
            said = f"{config.allowlist} is empty: nothing is served"
            found.append(Checked(Verdict.WARN, "allowlist", said, "hubpin add repo@revision"))
    except ConfigError as e:
        advice = "correct it there, or write one with hubpin init"
        found.append(Checked(Verdict.FAIL, "allowlist", str(e), advice))
    try:
        held = locks.load(config.lock)
        catalog = catalogs.build(wanted, held)
    except ConfigError as e:
        found.append(Checked(Verdict.FAIL, "lock", str(e), "restore it from version control"))
        return catalogs.build(wanted, locks.Lock()), found
    unlocked = [one.pair for one in catalog.unlocked()]
    if unlocked:
        said = f"{len(unlocked)} pairs are allowed and not locked: {_names(unlocked)}"
        found.append(Checked(Verdict.WARN, "lock", said, "hubpin lock"))
    else:
        found.append(Checked(Verdict.OK, "lock", f"{config.lock}: {len(held.pins)} pairs"))
    return catalog, found


def _names(pairs: Sequence[Pair]) -> str:
    more = len(pairs) - _SHOWN
    return ", ".join(pairs[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _data(config: Config) -> Iterator[Checked]:
    data = config.data
    there = next((one for one in (data, *data.parents) if os.access(one, os.F_OK)), data)
    if there != data:
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            said = f"{data} does not exist, and cannot be made in {there}"
            yield Checked(Verdict.FAIL, "data", said, f"make it, for user {os.geteuid()}")
            return
        yield Checked(Verdict.OK, "data", f"{data} does not exist yet; the first command makes it")
    else:
        yield _own(data)
    with suppress(OSError):  # then the line above has said so
        disk = os.statvfs(there)
        free = disk.f_bavail * disk.f_frsize
        said = f"{free:,} bytes are free, and keep_free is {config.keep_free:,}"
        if free > config.keep_free:
            yield Checked(Verdict.OK, "disk", said)
        else:
            said += ": nothing is downloaded, what is held is served"
            advice = "make room (hubpin gc, max_size, a larger disk), or lower keep_free"
            yield Checked(Verdict.FAIL, "disk", said, advice)


def _own(data: Path) -> Checked:
    try:
        status = data.stat()
        if not stat.S_ISDIR(status.st_mode):
            return Checked(Verdict.FAIL, "data", f"{data} is no directory", "name another (data:)")
        if status.st_uid != os.geteuid():
            said = f"{data} belongs to user {status.st_uid}, we are {os.geteuid()}"
            return Checked(Verdict.FAIL, "data", said, "run hubpin as that user, or chown -R it")
        with tempfile.TemporaryFile(dir=data) as file:
            file.write(b"written")
    except OSError as e:
        said = f"{data} cannot be written: {e.strerror or e}"
        return Checked(Verdict.FAIL, "data", said, "look at its mode, its mount, and the disk")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        said = f"{data} is open to others on this machine"
        return Checked(Verdict.WARN, "data", said, f"chmod 700 {data}")
    return Checked(Verdict.OK, "data", f"{data} is ours and can be written")


# --- upstreams and the clock ---------------------------------------------------------------------


async def _ask(config: Config, pair: Pair | None) -> list[Probe]:
    if config.offline:
        return []
    tasks = (probe(one, config.timeouts, pair) for one in config.upstreams)
    return list(await asyncio.gather(*tasks))


def _upstreams(config: Config, probes: Sequence[Probe]) -> Iterator[Checked]:
    if not probes:
        said = "not asked: offline: true" if config.offline else "none is configured"
        yield Checked(Verdict.SKIP, "upstream", said)
    # "It does not have it" is an answer.
    lost = [one for one in probes if _unreached(one)]
    for one in probes:
        match one.error:
            case None:
                yield Checked(Verdict.OK, "upstream", f"{one.name} answers")
            case UpstreamMissing():
                advice = "is the name right? Is it the upstream that has it?"
                yield Checked(Verdict.WARN, "upstream", str(one.error), advice)
            case UpstreamForbidden():
                advice = "look at token_file, and whether its owner accepted the licence"
                yield Checked(Verdict.WARN, "upstream", str(one.error), advice)
            case error:
                verdict = Verdict.FAIL if len(lost) == len(probes) else Verdict.WARN
                advice = (
                    "look at its URL, the network, the name server and the firewall; a TLS error "
                    "also means a wrong clock, or a certificate that this machine does not trust"
                )
                yield Checked(verdict, "upstream", str(error), advice)


def _unreached(one: Probe) -> bool:
    return one.error is not None and not isinstance(one.error, UpstreamMissing | UpstreamForbidden)


def _clock(config: Config, probes: Sequence[Probe], now: float) -> Checked:
    advice = "set this machine's clock (NTP): TLS and signed URLs need the right time"
    newest = max(_modified(config), default=(0.0, Path()))
    ahead = newest[0] - now
    if ahead > SKEW_S:
        said = (
            f"{newest[1]} was written {ahead:,.0f} s from now: the clock was set back, or is slow"
        )
        return Checked(Verdict.WARN, "clock", said, advice)
    skews = [(one.date - now, one.name) for one in probes if one.date is not None]
    for skew, name in skews:
        if abs(skew) > SKEW_S:
            said = f"{abs(skew):,.0f} s {'behind' if skew > 0 else 'ahead of'} the one of {name}"
            return Checked(Verdict.WARN, "clock", said, advice)
    said = f"agrees with {skews[0][1]}" if skews else "not before our newest file"
    return Checked(Verdict.OK, "clock", said)


def _modified(config: Config) -> Iterator[tuple[float, Path]]:
    """When files of ours were written. Not the blobs: their times are seals."""
    named = [config.file, config.allowlist, config.lock]
    for folder in (config.data, config.data / "spool"):
        with suppress(OSError):
            named += folder.iterdir()
    for file in named:
        if file is not None:
            with suppress(OSError):
                yield file.stat().st_mtime, file


# --- the server ----------------------------------------------------------------------------------


def _port(config: Config) -> tuple[bool, Checked]:
    """Whether our server answers, and what was found."""
    listen = config.listen
    ready = instance.get(listen.local_url, "/-/ready", _READY_S)
    said = instance.status(config, _STATUS_S) if ready is not None else None
    if ready is None or said is None:
        return False, _unserved(config)
    who = f"hubpin {said.get('version')} (pid {said.get('pid')})"
    if not instance.serves(config, said):
        found = f"{listen} is taken by {who}, which serves from {said.get('data')}"
        return False, Checked(
            Verdict.FAIL, "port", found, "give one of them another port (listen:)"
        )
    if ready.status != 200:
        found = f"{who} answers {ready.status} to /-/ready: {ready.body[:100].decode('latin-1')}"
        return False, Checked(Verdict.WARN, "port", found.strip(), "wait until it has ended")
    if said.get("catalog_error"):
        found = f"{who} keeps its previous catalog: {said['catalog_error']}"
        return True, Checked(Verdict.WARN, "port", found, "correct what it names")
    if said.get("version") != version("hubpin"):
        found = f"{who} runs, and {version('hubpin')} is installed"
        return True, Checked(Verdict.WARN, "port", found, "restart the server")
    return True, Checked(Verdict.OK, "port", f"{who} is ready at {listen.local_url}")


def _unserved(config: Config) -> Checked:
    problem = ports.problem(config.listen)
    if problem is None:
        return Checked(
            Verdict.OK, "port", f"{config.listen} is free; no server runs (hubpin start)"
        )
    if not ports.is_taken(problem):
        found = f"nobody can listen on {config.listen}: {problem.strerror or problem}"
        return Checked(Verdict.FAIL, "port", found, "correct listen:")
    record = instance.read(config)
    if record is not None and record.alive():
        found = f"the server (pid {record.pid}) runs and does not answer at {config.listen}"
        advice = f"look at {instance.log_file(config)}, then hubpin start, which replaces it"
        return Checked(Verdict.FAIL, "port", found, advice)
    found = f"{config.listen} is taken by {ports.holder(config.listen.port)}"
    return Checked(
        Verdict.FAIL, "port", found, "end that program, or give hubpin another (listen:)"
    )


async def _client(config: Config, catalog: Catalog, device: Device, *, serves: bool) -> Checked:
    """A round trip with the real client, if there is one."""
    if not serves:
        return Checked(Verdict.SKIP, "client", "not tried: no server of ours is ready")
    if importlib.util.find_spec(_CLIENT) is None:
        return Checked(Verdict.SKIP, "client", f"not tried: {_CLIENT} is not installed here")
    smallest = await _smallest_held(config, catalog)
    if smallest is None:
        return Checked(Verdict.SKIP, "client", "not tried: no locked file is held (hubpin warm)")
    snapshot, entry = smallest
    what = f"{entry.path!a} of {snapshot.pair}"
    try:
        async with asyncio.timeout(_CLIENT_S):
            ran = await _download(device(config.listen.local_url), snapshot, entry)
    except (TimeoutError, OSError, MirrorError) as e:
        found = f"{_CLIENT} did not get {what}: {e or f'not within {_CLIENT_S:g} s'}"
        return Checked(Verdict.FAIL, "client", found, "look at the server's log")
    said = _GOT.search("\n".join(ran.output))
    if ran.status != 0 or said is None:
        last = ran.output[-1][:300] if ran.output else "it said nothing"
        found = f"{_CLIENT} did not get {what}: {last}"
        return Checked(Verdict.FAIL, "client", found, "look at the server's log")
    release, digest = said.groups()
    if digest != entry.digest.hex:
        found = f"{_CLIENT} {release} got other bytes than the locked ones: {what}"
        return Checked(Verdict.FAIL, "client", found, "hubpin verify")
    return Checked(Verdict.OK, "client", f"{_CLIENT} {release} got {what}, as it is locked")


async def _smallest_held(config: Config, catalog: Catalog) -> tuple[Snapshot, Entry] | None:
    store = LocalStore(config.data)
    found = [(one, entry) for one in catalog.snapshots() for entry in one.files.values()]
    for one, entry in sorted(found, key=lambda pair: pair[1].size):
        with suppress(StoreError):  # altered, or not ours to look into: try the next
            if entry.size and await store.size(entry.digest) == entry.size:
                return one, entry
    return None


async def _download(settings: Mapping[str, str], snapshot: Snapshot, entry: Entry) -> stage.Ran:
    repo, revision = snapshot.repo, snapshot.pair.revision
    with tempfile.TemporaryDirectory(prefix="hubpin-doctor-") as home:
        environment = {
            **settings,
            "HF_HOME": home,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HOME": home,
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join(one for one in sys.path if one),
        }
        kind = repo.type.value.removesuffix("s")
        script = (sys.executable, "-P", "-c", _ROUND_TRIP, kind, repo.name, revision, entry.path)
        return await stage.run(stage.Command("doctor", _CLIENT, script, environment))
