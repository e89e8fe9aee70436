"""Keeps the Catalog current; a bad edit changes nothing but a log line and a gauge."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from proxy.errors import ConfigError
from proxy.pins.catalog import Catalog
from proxy.pins.versions import Catalogs, Numbers, OwnNumber, Texts
from proxy.telemetry import metrics
from proxy.telemetry.audit import Audit, Pinned, Reloaded

log = logging.getLogger(__name__)


class Reloader:
    """Holds the catalog in force."""

    def __init__(
        self,
        allowlist: Path,
        lock: Path,
        audit: Audit | None = None,
        *,
        numbers: Numbers | None = None,
    ) -> None:
        """`numbers` has other processes change with this one. Raises: ConfigError."""
        self._audit = audit or Audit(None)
        self._allowlist = allowlist
        self._lock = lock
        self._turn = threading.Lock()  # a slow reload must not undo a later one
        self.error: ConfigError | None = None  # why the newest edit is not in force
        self._numbers = numbers or OwnNumber()
        self._catalogs = Catalogs()
        self._put(*self._load())

    @property
    def catalog(self) -> Catalog:
        while True:  # the number may change between the two looks, and the old one be gone
            found = self._catalogs.at(self._numbers.current)
            if found is not None:
                return found

    def reload(self) -> bool:
        """Put the files in force as they are now; False if they are broken.

        Takes seconds for a lock of a hundred thousand files: a server calls it in a thread. Who
        asks meanwhile is answered from the catalog before.
        """
        with self._turn:
            return self._reload()

    def _reload(self) -> bool:
        try:
            catalog, texts = self._load()
        except ConfigError as e:
            self.error = e
            metrics.CATALOG_STALE.set(1)
            log.error("keeping the previous catalog: %s", e)
            self._audit.note(Reloaded(0, str(e)))
            return False
        changes = _changes(self.catalog, catalog)
        pinned = _pinned(self.catalog, catalog)
        self._put(catalog, texts)
        if changes or self.error is not None:
            self._audit.note(Reloaded(len(pinned), ""))
        for event in pinned:
            self._audit.note(event)
        self.error = None
        metrics.CATALOG_STALE.set(0)
        for change in changes:
            log.info("catalog: %s", change)
        return True

    def announce(self) -> None:
        """Have the audit log say what is in force, for a server that starts."""
        for event in _pinned(Catalog(), self.catalog):
            self._audit.note(event)

    def _load(self) -> tuple[Catalog, Texts]:
        texts = Texts.read(self._allowlist, self._lock)
        catalog = texts.catalog(self._allowlist, self._lock)
        metrics.PAIRS_UNLOCKED.set(sum(1 for _ in catalog.unlocked()))
        return catalog, texts

    def _put(self, catalog: Catalog, texts: Texts) -> None:
        number = self._numbers.current + 1
        self._catalogs.hold(number, catalog)
        self._numbers.put(number, texts)
        self._catalogs.forget(before=number)


def _pinned(old: Catalog, new: Catalog) -> list[Pinned]:
    """What is different, for the audit log."""
    before = {snapshot.pair: snapshot for snapshot in old.snapshots()}
    after = {snapshot.pair: snapshot for snapshot in new.snapshots()}
    gone = [Pinned(pair, "", "", before[pair].commit) for pair in sorted(before.keys() - after)]
    events = []
    for pair, now in sorted(after.items()):
        was = before.get(pair)
        if was is None or was.fingerprint != now.fingerprint or was.commit != now.commit:
            events.append(Pinned(pair, now.commit, now.fingerprint, was.commit if was else ""))
    return gone + events


def _changes(old: Catalog, new: Catalog) -> list[str]:
    """What is different, one line each, for the log."""
    before = {snapshot.pair: snapshot for snapshot in old.snapshots()}
    after = {snapshot.pair: snapshot for snapshot in new.snapshots()}
    lines = [f"{pair} is served no more" for pair in sorted(before.keys() - after.keys())]
    for pair in sorted(after):
        was, now = before.get(pair), after[pair]
        if was is None:
            lines.append(f"{pair} is served at {now.commit}")
        elif was.commit != now.commit:
            lines.append(f"{pair} moved from {was.commit} to {now.commit}")
        elif was.fingerprint != now.fingerprint:
            lines.append(f"{pair} serves other files now: {now.fingerprint}")
    waiting = {one.pair for one in new.unlocked()} - {one.pair for one in old.unlocked()}
    lines += [f"{pair} is allowed and not locked yet" for pair in sorted(waiting)]
    return lines
