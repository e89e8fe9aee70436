"""When each blob was last served: a hint, rebuildable, safe to delete at any time.

diskcache unpickles what it reads, and its `JSONDisk` still does if a row's mode column says so
(CVE-2025-69872, no fixed release). `NumbersOnly` refuses whatever is not a plain number, so a
planted row is an error and never code.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sqlite3
import time
from pathlib import Path

import diskcache

from proxy.hub.names import Digest

log = logging.getLogger(__name__)

_FLUSH_S = 30.0
_MODE_RAW = 1


class NumbersOnly(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Keys are texts, values are numbers; nothing is pickled and no file is opened."""

    def put(self, key: str) -> tuple[str, bool]:
        return str(key), True

    def get(self, key: object, raw: object) -> str:
        if not raw or not isinstance(key, str):
            raise ValueError("a key of the index is not a text")
        return key

    def store(
        self, value: float, read: object, key: object = None
    ) -> tuple[int, int, None, float]:  # diskcache's signature
        return 0, _MODE_RAW, None, float(value)

    def fetch(
        self, mode: object, filename: object, value: object, read: object
    ) -> float:  # diskcache's signature
        if mode != _MODE_RAW or filename is not None or not isinstance(value, int | float):
            raise ValueError("a value of the index is not a number")
        return float(value)

    def remove(self, file_path: object) -> None:
        """diskcache would delete the file that a row names, wherever that is."""


# What an index that somebody altered can make diskcache raise.
_BROKEN = (sqlite3.Error, diskcache.Timeout, ValueError, TypeError, AttributeError, OSError)
# Among these, what may be over the next time.
_PASSING = (sqlite3.OperationalError, diskcache.Timeout, OSError)


class Recency:
    """When each blob was last served, in Unix seconds; written down every half minute."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cache: diskcache.Cache | None = None
        self._fresh: dict[Digest, float] = {}

    def touch(self, digest: Digest) -> None:
        """The blob was served now. Costs a dictionary write."""
        self._fresh[digest] = time.time()

    def last_served(self, digest: Digest) -> float:
        """0 if it never was, or if the hint is lost."""
        if digest in self._fresh:
            return self._fresh[digest]
        try:
            found = self._open().get(digest.hex, 0.0)
        except _BROKEN as e:
            self._failed("read", e)
            return 0.0
        return float(found)

    async def keep_writing(self) -> None:
        """Write hints down until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(_FLUSH_S)
                await asyncio.to_thread(self.flush)
        finally:
            self.flush()

    def flush(self) -> None:
        """Write down what is new. A failure costs the hints and nothing else."""
        fresh, self._fresh = self._fresh, {}
        rows = tuple(fresh.items())  # at once: the loop may be writing its last one there
        if not rows:
            return
        try:
            cache = self._open()
            with cache.transact():
                for digest, moment in rows:
                    cache.set(digest.hex, moment)
        except _BROKEN as e:
            self._failed("written", e)

    def _failed(self, what: str, error: Exception) -> None:
        """An index that is broken is thrown away: it holds hints, and is begun anew."""
        log.warning("the index of last use cannot be %s: %s", what, error)
        if not isinstance(error, _PASSING):
            self._cache = None
            shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        self.flush()
        if self._cache is not None:
            with contextlib.suppress(sqlite3.Error):
                self._cache.close()
            self._cache = None

    def _open(self) -> diskcache.Cache:
        if self._cache is None:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            # The defaults forget rows past 1 GiB without a word.
            self._cache = diskcache.Cache(
                str(self._folder),
                disk=NumbersOnly,
                eviction_policy="none",
                cull_limit=0,
                size_limit=2**62,
                timeout=5,
            )
        return self._cache
