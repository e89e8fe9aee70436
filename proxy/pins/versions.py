"""Catalogs by number, of which one is in force: in one process, or in several at the same moment.

Several processes share memory that all of them map:

    0       the number of the catalog in force, 8 bytes in the machine's order
    4096    text of the allowlist, then text of the lock, of the newest catalog

The main process writes both; the others build a catalog from the texts as soon as they are told
to, and answer from it once the number is the one of it. So all of them change at one moment: the
one in which 8 bytes are written.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from proxy import yamlfile
from proxy.errors import ConfigError
from proxy.pins import allowlist as allowlists
from proxy.pins import catalog as catalogs
from proxy.pins import lock as locks
from proxy.pins.catalog import Catalog
from proxy.pins.lock import Lock

_TEXTS = 4096  # where they begin


@dataclass(frozen=True, slots=True)
class Texts:
    """What a catalog is made of, as it was read."""

    allowlist: str
    lock: bytes | None  # None: there is no lock yet

    @classmethod
    def read(cls, allowlist: Path, lock: Path) -> Texts:
        """Raises: ConfigError."""
        return cls(yamlfile.text_of(allowlist), locks.bytes_of(lock))

    def catalog(self, allowlist: Path, lock: Path) -> Catalog:
        """The paths are for messages. Raises: ConfigError."""
        wanted = allowlists.loads(self.allowlist, allowlist)
        return catalogs.build(wanted, Lock() if self.lock is None else locks.loads(self.lock, lock))


class Numbers(Protocol):
    """Which number is in force."""

    @property
    def current(self) -> int: ...

    def put(self, number: int, texts: Texts) -> None:
        """Put a number in force; no process answers from an older catalog when this returns.

        Blocking, and not on the event loop.
        """
        ...


class OwnNumber:
    """Of one process alone."""

    def __init__(self) -> None:
        self.current = 0

    def put(self, number: int, texts: Texts) -> None:
        self.current = number


class Shared:
    """The memory that several processes share."""

    def __init__(self, fd: int) -> None:
        """`fd` is ours from here on."""
        self.fd = fd
        self._map = mmap.mmap(fd, _TEXTS)
        # 8 bytes that lie in one cache line are read and written as one.
        self._number = memoryview(self._map).cast("Q")

    @classmethod
    def make(cls) -> Shared:
        fd = os.memfd_create("hubpin-catalog", os.MFD_CLOEXEC)
        os.ftruncate(fd, _TEXTS)
        return cls(fd)

    @property
    def number(self) -> int:
        return self._number[0]

    @number.setter
    def number(self, number: int) -> None:
        self._number[0] = number

    def write(self, texts: Texts) -> tuple[int, int]:
        """How long both are; -1 for a lock that there is not."""
        allowlist = texts.allowlist.encode()
        lock = texts.lock or b""
        os.ftruncate(self.fd, _TEXTS + len(allowlist) + len(lock))
        at = _TEXTS
        for text in (allowlist, lock):
            rest = memoryview(text)
            while rest:
                count = os.pwrite(self.fd, rest, at)
                at, rest = at + count, rest[count:]
        return len(allowlist), -1 if texts.lock is None else len(lock)

    def read(self, allowlist: int, lock: int) -> Texts:
        """The texts of these lengths."""
        both = b""
        while len(both) < allowlist + max(lock, 0):
            piece = os.pread(self.fd, allowlist + max(lock, 0) - len(both), _TEXTS + len(both))
            if not piece:
                raise ConfigError("the shared memory", None, "it ends early")
            both += piece
        return Texts(both[:allowlist].decode(), None if lock < 0 else both[allowlist:])

    def close(self) -> None:
        self._number.release()
        self._map.close()
        os.close(self.fd)


class Catalogs:
    """The catalog in force, and one that will be soon."""

    def __init__(self) -> None:
        self._held: Mapping[int, Catalog] = {}  # replaced, never changed

    def at(self, number: int) -> Catalog | None:
        return self._held.get(number)

    def hold(self, number: int, catalog: Catalog) -> None:
        self._held = {**self._held, number: catalog}

    def forget(self, *, before: int) -> None:
        """What came before this number is not needed any more."""
        self._held = {number: one for number, one in self._held.items() if number >= before}


class Told:
    """The catalog in force, in a process that is told which one that is."""

    def __init__(self, shared: Shared, allowlist: Path, lock: Path) -> None:
        self.error: ConfigError | None = None  # only who reads the files knows
        self._shared = shared
        self._allowlist = allowlist
        self._lock = lock
        self._catalogs = Catalogs()

    @property
    def catalog(self) -> Catalog:
        while True:  # the number may change between the two looks, and the old one be gone
            found = self._catalogs.at(self._shared.number)
            if found is not None:
                return found

    def reload(self) -> bool:
        """False: only the main process reads the files."""
        return False

    def announce(self) -> None:
        """Nothing: the main process has said it."""

    def load(self, number: int, sizes: tuple[int, int]) -> None:
        """Hold the catalog of the texts in the shared memory. Blocking. Raises: ConfigError."""
        texts = self._shared.read(*sizes)
        self._catalogs.hold(number, texts.catalog(self._allowlist, self._lock))

    def forget(self) -> None:
        """Let go of what is not in force any more."""
        self._catalogs.forget(before=self._shared.number)
