"""Mirror: the one object that front ends and tasks hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from proxy.config import Config
from proxy.errors import ConfigError, InstanceRunning, StoreError
from proxy.mirror import flock
from proxy.mirror.cache import BlobCache
from proxy.pins.catalog import Catalog
from proxy.store.base import BlobStore
from proxy.store.recency import Recency
from proxy.telemetry.audit import Audit
from proxy.upstream.base import Upstream


class CatalogSource(Protocol):
    """Knows which catalog is in force."""

    @property
    def catalog(self) -> Catalog: ...

    @property
    def error(self) -> ConfigError | None:
        """Why the newest edit is not in force; None if it is."""
        ...

    def reload(self) -> bool:
        """Put the files in force as they are now; False if that was not done. Blocking."""
        ...

    def announce(self) -> None:
        """Have the audit log say what is in force, for a server that starts."""
        ...


@dataclass(frozen=True, slots=True)
class Mirror:
    """What may be served, where its bytes are, and where missing ones come from."""

    config: Config
    reloader: CatalogSource
    cache: BlobCache
    store: BlobStore
    recency: Recency
    upstream: Upstream  # for bytes: all that are configured, as one
    authorities: tuple[Upstream, ...]  # those with a say in what a revision means, in order
    audit: Audit = field(default_factory=lambda: Audit(None))
    closed_s: Callable[[], float] = lambda: 0.0  # seconds until `upstream` may be asked for bytes

    @property
    def catalog(self) -> Catalog:
        """What may be served now. A request reads it once."""
        return self.reloader.catalog

    @property
    def spool(self) -> Path:
        """Files in progress; on the same file system as the blobs."""
        return self.cache.spool

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Only one server works on a data directory. Raises: InstanceRunning."""
        file = self.config.data / "instance.lock"
        try:
            with flock.holding(file) as fd:
                flock.sign(fd)
                yield
        except flock.Held as e:
            raise InstanceRunning(self.config.data, flock.signature(file)) from e

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """For who stores blobs that no lock file names yet: `sweeping` waits outside.

        Raises: StoreError, if somebody sweeps.
        """
        try:
            with flock.holding(self.config.data / "gc.lock", shared=True):
                yield
        except flock.Held as e:
            raise StoreError("hubpin gc is running here; try again when it is done") from e

    @asynccontextmanager
    async def sweeping(self) -> AsyncIterator[None]:
        """For who deletes blobs. Raises: StoreError, if somebody publishes."""
        try:
            with flock.holding(self.config.data / "gc.lock"):
                yield
        except flock.Held as e:
            raise StoreError(
                "a lock, an import or another gc is running here; try again when it is done"
            ) from e
