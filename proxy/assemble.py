"""Config → Mirror; the only module that names concrete stores and upstreams."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from proxy import upstream as upstreams
from proxy.config import Config
from proxy.errors import ConfigError
from proxy.mirror.cache import BlobCache
from proxy.mirror.mirror import Mirror
from proxy.mirror.transfer import Tuning
from proxy.pins.reload import Reloader
from proxy.pins.versions import Numbers, Told
from proxy.store.local import LocalStore
from proxy.store.recency import Recency
from proxy.telemetry.audit import Audit, Rules
from proxy.upstream.base import Upstream
from proxy.upstream.failover import Failover
from proxy.upstream.offline import OfflineUpstream
from proxy.upstream.paced import Pace, Paced

# https://bford.info/cachedir/
_CACHEDIR_TAG = """Signature: 8a477f597d28d172789f06886806bc55
# This directory holds blobs that hubpin can fetch again.
"""


@asynccontextmanager
async def open_mirror(
    config: Config,
    *,
    tuning: Tuning | None = None,
    pace: Pace | None = None,
    numbers: Numbers | None = None,
) -> AsyncIterator[Mirror]:
    """The mirror that `config` describes, closed at the end of the block.

    `pace` says how fast and when it fetches; `numbers` has other processes change catalogs with it.

    Raises: ConfigError (a broken file, a data directory that is not ours), StoreError.
    """
    prepare_data(config)
    audit = open_audit(config)
    reloader = Reloader(config.allowlist, config.lock, audit, numbers=numbers)
    sources = () if config.offline else config.upstreams
    members = [upstreams.from_url(one, config.timeouts) for one in sources]
    authorities = tuple(
        member for member, source in zip(members, sources, strict=True) if source.authoritative
    )
    upstream = _one(members)
    if pace is not None:
        upstream = Paced(upstream, pace)
    try:
        async with _cache(config, upstream, tuning, audit) as (cache, store, recency):
            yield Mirror(
                config, reloader, cache, store, recency, upstream, authorities, audit,
                closed_s=(pace or Pace()).closed_s,
            )  # fmt: skip
    finally:
        await asyncio.to_thread(audit.close)


@asynccontextmanager
async def open_share(config: Config, told: Told) -> AsyncIterator[Mirror]:
    """The mirror as a worker has it: without upstreams, and with the catalog that it is told."""
    audit = open_audit(config)
    upstream = OfflineUpstream()
    try:
        async with _cache(config, upstream, None, audit) as (cache, store, recency):
            yield Mirror(config, told, cache, store, recency, upstream, (), audit)
    finally:
        await asyncio.to_thread(audit.close)


def open_audit(config: Config) -> Audit:
    """The audit log of the data directory, if one is kept."""
    rules = Rules(
        size=config.audit_size,
        keep=config.audit_keep,
        sync=config.audit_sync,
        pseudonyms=config.audit_addresses == "pseudonym",
    )
    return Audit(config.data if config.audit else None, rules)


@asynccontextmanager
async def open_cache(config: Config) -> AsyncIterator[BlobCache]:
    """Only what downloads: store and upstreams, without allowlist and lock. Raises: ConfigError."""
    prepare_data(config)
    members = [upstreams.from_url(one, config.timeouts) for one in config.upstreams]
    # The server writes down what is fetched: it knows how it ended.
    async with _cache(config, _one(members), None, Audit(None)) as (cache, _, _):
        yield cache


def _one(members: list[Upstream]) -> Upstream:
    if not members:
        return OfflineUpstream()
    return members[0] if len(members) == 1 else Failover(members)


@asynccontextmanager
async def _cache(
    config: Config, upstream: Upstream, tuning: Tuning | None, audit: Audit
) -> AsyncIterator[tuple[BlobCache, LocalStore, Recency]]:
    store = LocalStore(config.data)
    recency = Recency(config.data / "index-v1")
    cache = BlobCache(
        store,
        upstream,
        data=config.data,
        recency=recency,
        tuning=tuning or Tuning(keep_free=config.keep_free),
        audit=audit,
    )
    try:
        yield cache, store, recency
    finally:
        await cache.close()
        await upstream.close()
        recency.close()


def prepare_data(config: Config) -> None:
    """Make the data directory, ours alone. Raises: ConfigError."""
    data = config.data
    where = config.file or "data"
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = data.stat()
        if status.st_uid != os.geteuid():
            raise ConfigError(
                where, None, f"data: {data} belongs to user {status.st_uid}, we are {os.geteuid()}"
            )
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            data.chmod(0o700)
        (data / "spool").mkdir(mode=0o700, exist_ok=True)
        _write_once(data / "CACHEDIR.TAG", _CACHEDIR_TAG)
    except OSError as e:
        raise ConfigError(where, None, f"data: {data} cannot be used: {e.strerror or e}") from e


def _write_once(file: Path, text: str) -> None:
    if file.exists():
        return
    try:
        file.write_text(text, encoding="ascii")
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):  # what is held is served without it
            raise
