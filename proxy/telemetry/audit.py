"""Who took what: <data>/audit.jsonl, one JSON object a line, appended and never changed.

    {"at": "2026-03-01T12:00:00.123Z", "event": "served", "device": "10.0.8.17", …}

Each class below is an event; its name in lower case is `event`, its fields are the others. A file
that has grown to its size is renamed audit-<time>.jsonl, and another one is begun. Several
processes of ours write to it, in turn. A thread does the writing: who notes an event pays
microseconds, and neither a slow disk nor a full one can hold up or fail a request. Events that
could not be written are kept in memory, so many at most; a `gap` says how many were lost.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import msgspec

from proxy.telemetry import metrics

log = logging.getLogger(__name__)

NAME = "audit.jsonl"
_ROTATED = "audit-*.jsonl"
_KEY = "audit.key"
_MOST = 100_000  # events in memory; more are lost
_BATCH = 1000  # events written at once
_GATHER_S = 0.2  # how long events wait for others
_RETRY_S = 5.0  # after a write that failed
_END_S = 5.0  # to write down the rest when we end
_JSON = msgspec.json.Encoder(enc_hook=str)  # names are of kinds that msgspec does not know


class _Event(msgspec.Struct, frozen=True, gc=False, tag_field="event", tag=str.lower):
    """Made and written as JSON in a microsecond each: there is one for every answer."""


class Served(_Event, frozen=True):
    """Bytes [start, start + sent) of a file went out; [start, stop) was to go."""

    device: str  # address, or its pseudonym
    request: str  # X-Request-Id
    agent: str  # User-Agent
    repo: str
    commit: str
    path: str
    digest: str
    size: int  # bytes of the whole file
    start: int
    stop: int
    sent: int
    complete: bool  # all that was to go went


class Handed(_Event, frozen=True):
    """nginx was told to send bytes [start, stop) of a file; its own log says how many went."""

    device: str  # nginx's address, or its pseudonym
    request: str  # X-Request-Id, which nginx's log has, too
    agent: str  # User-Agent
    repo: str
    commit: str
    path: str
    digest: str
    size: int  # bytes of the whole file
    start: int
    stop: int


class Refused(_Event, frozen=True):
    """Somebody asked for what this mirror does not serve."""

    device: str
    request: str
    agent: str
    method: str
    target: str  # as it was asked for
    status: int
    error: str  # the name of a class in proxy/errors.py
    message: str


class Fetched(_Event, frozen=True):
    """A blob came, was verified, and is held."""

    repo: str
    commit: str
    path: str
    digest: str
    size: int
    source: str  # the upstream that delivered last
    seconds: float


class Wrong(_Event, frozen=True):
    """Bytes were not the locked bytes: from an `upstream`, or on our `disk`."""

    where: str
    source: str  # the upstream that delivered last; "" for the disk
    digest: str
    path: str  # "repo/path", where it is known
    times: int
    healed: bool  # the right ones came in the end


class Pinned(_Event, frozen=True):
    """A pair is in force at a commit; commit "": it is served no more."""

    pair: str
    commit: str
    fingerprint: str
    old: str  # the commit before; "": none


class Reloaded(_Event, frozen=True):
    """Allowlist and lock were read again."""

    changed: int  # pairs
    error: str  # why the new ones are not in force; "": they are


class Gap(_Event, frozen=True):
    """So many events could not be written."""

    lost: int


Event = Served | Handed | Refused | Fetched | Wrong | Pinned | Reloaded | Gap


@dataclass(frozen=True, slots=True)
class Rules:
    """How the log is kept."""

    size: int = 64 << 20  # bytes, at which another file is begun
    keep: int = 100  # files besides the one that grows; 0: all
    sync: bool = True  # fsync after each batch
    pseudonyms: bool = False  # instead of addresses


class Audit:
    """The log of a data directory; without one, every event is forgotten."""

    def __init__(self, folder: Path | None, rules: Rules = Rules()) -> None:
        self._folder = folder
        self._rules = rules
        self._waiting: deque[tuple[float, Event]] = deque()
        self._lost = 0
        self._failing = False
        self._bell = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._names: dict[str, str] = {}  # address → pseudonym

    def note(self, event: Event) -> None:
        """Have an event written down soon. Never blocks, never fails."""
        if self._folder is None:
            return
        if len(self._waiting) >= _MOST:
            self._lost += 1
            return
        self._waiting.append((time.time(), event))
        if not self._bell.is_set():
            self._bell.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Write down the rest, as far as the disk takes it."""
        self._closing.set()
        self._bell.set()
        if self._thread is not None:
            self._thread.join(_END_S)

    # --- in the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            self._bell.wait()
            self._closing.wait(_GATHER_S)
            self._bell.clear()  # who notes an event from here on rings again
            if not self.flush():
                self._closing.wait(_RETRY_S)
                self._bell.set()
        self.flush()

    def flush(self) -> bool:
        """Write down what waits; False if the disk did not take it. Blocking."""
        folder = self._folder
        waiting = len(self._waiting)  # what comes meanwhile gathers for the next turn
        while folder is not None and (waiting or self._lost):
            lost = self._lost
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, waiting))]
            waiting -= len(batch)
            gap = [(time.time(), Gap(lost))] if lost else []
            try:
                _append(folder, b"".join(self._line(*one) for one in batch + gap), self._rules)
            except OSError as e:
                self._waiting.extendleft(reversed(batch))
                if not self._failing:
                    log.error("the audit log cannot be written: %s", e.strerror or e)
                self._failing = True
                metrics.AUDIT_FAILING.set(1)
                return False
            self._lost -= lost
        if self._failing:
            log.info("the audit log is written again")
        self._failing = False
        metrics.AUDIT_FAILING.set(0)
        return True

    def _line(self, at: float, event: Event) -> bytes:
        if self._rules.pseudonyms and isinstance(event, Served | Handed | Refused):
            event = msgspec.structs.replace(event, device=self._name(event.device))
        try:
            fields = _JSON.encode(event)
        except UnicodeEncodeError:
            fields = _JSON.encode(_as_text(event))
        return b'{"at":"%b",%b\n' % (timestamp(at).encode(), fields[1:])

    def _name(self, address: str) -> str:
        assert self._folder is not None
        if address not in self._names:
            if len(self._names) >= _MOST:
                self._names.clear()
            self._names[address] = pseudonym(self._folder, address)
        return self._names[address]


def _as_text(event: Event) -> Event:
    """The same, with `?` for what is no text: a User-Agent may hold any bytes."""
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    return msgspec.structs.replace(
        event, **{name: text.encode(errors="replace").decode() for name, text in texts.items()}
    )


def timestamp(at: float) -> str:
    """Unix seconds as `2026-03-01T12:00:00.123Z`."""
    second, millisecond = divmod(round(at * 1e6) // 1000, 1000)
    return f"{_second(second)}.{millisecond:03}Z"


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    """Events come in the order of time, and many in the same second."""
    return datetime.fromtimestamp(second, UTC).isoformat()[:-6]


def pseudonym(folder: Path, address: str) -> str:
    """What stands for an address here: the same each time, and only with the key to be had.

    The key lies in `folder`; it is made if it is not there. Raises: OSError.
    """
    file = folder / _KEY
    try:
        key = file.read_bytes()
    except FileNotFoundError:
        made = folder / f"{_KEY}.{secrets.token_hex(4)}"
        fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(fd, secrets.token_bytes(32))
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            with suppress(FileExistsError):  # another process was quicker
                file.hardlink_to(made)
        finally:
            made.unlink()
        key = file.read_bytes()
    return "device-" + hashlib.blake2b(address.encode(), key=key, digest_size=8).hexdigest()


def known_as(folder: Path, address: str) -> tuple[str, ...]:
    """Pseudonyms of an address that the log may hold. Raises: OSError."""
    return (pseudonym(folder, address),) if (folder / _KEY).exists() else ()


def files(folder: Path) -> list[Path]:
    """The log of a data directory, oldest file first. Blocking."""
    last = folder / NAME
    return [*sorted(folder.glob(_ROTATED)), *([last] if last.exists() else [])]


def _append(folder: Path, lines: bytes, rules: Rules) -> None:
    """All of it, or nothing."""
    with _turn(folder / NAME) as fd:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":  # a crash left half a line
            lines = b"\n" + lines
        try:
            at = 0
            while at < len(lines):
                at += os.write(fd, lines[at:])
            if rules.sync:
                os.fdatasync(fd)
        except OSError:
            os.ftruncate(fd, size)
            raise
        if size + len(lines) >= rules.size:
            _rotate(folder, rules.keep)


@contextmanager
def _turn(file: Path) -> Iterator[int]:
    """The file that grows, while no other process writes to it."""
    while True:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(file, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(fd), file.stat())
            except FileNotFoundError:
                same = False
            if same:  # else it was rotated while we waited
                yield fd
                return
        finally:
            os.close(fd)


def _rotate(folder: Path, keep: int) -> None:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    (folder / NAME).rename(folder / f"audit-{stamp}.jsonl")
    if keep:
        for old in sorted(folder.glob(_ROTATED))[:-keep]:
            old.unlink(missing_ok=True)
