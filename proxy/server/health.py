"""/-/healthy, /-/ready, /-/status and /metrics."""

from __future__ import annotations

import asyncio
import os
import time
from importlib.metadata import version

from aiohttp import web

from proxy.config import Config
from proxy.errors import StoreError
from proxy.hub.names import Digest
from proxy.hub.wire import Json
from proxy.pins.catalog import Snapshot
from proxy.server import bodies
from proxy.server.site import Call, Site
from proxy.telemetry import metrics

VERSION = version("hubpin")
_YIELD_EVERY = 500  # stats between letting others run


def healthy() -> web.Response:
    """The process answers."""
    return web.Response(text="ok\n")


def ready(site: Site) -> web.Response:
    """Requests are welcome: the catalog is loaded and nobody asked us to stop."""
    if site.stopping:
        return web.Response(status=503, text="stopping\n", headers={"Retry-After": "5"})
    return web.Response(text="ready\n")


async def prometheus(site: Site) -> web.Response:
    """The same from every process: the main one adds up."""
    body = await (site.owner.metrics() if site.owner is not None else metrics_text(site))
    return web.Response(
        body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )


async def metrics_text(site: Site) -> bytes:
    metrics.PAIRS_DRIFTED.set(len(site.drift.drifted))
    metrics.WORKERS.set(len(_pids(site)))
    free = _free(site.mirror.config)
    if free is not None:
        metrics.DISK_FREE.set(free)
    return metrics.render(await site.others.tallies() if site.others is not None else ())


async def status(call: Call) -> web.Response:
    """What an admin wants to know at 3 a.m., as JSON; the same from every process."""
    owner = call.site.owner
    return call.json(await (owner.status() if owner is not None else status_text(call.site)))


async def status_text(site: Site) -> bytes:
    return bodies.encode(await status_json(site))


def _pids(site: Site) -> list[int]:
    return [os.getpid(), *(site.others.pids if site.others is not None else ())]


async def status_json(site: Site) -> Json:
    mirror = site.mirror
    catalog = mirror.catalog
    held: dict[Digest, bool] = {}
    free = _free(mirror.config)
    error = mirror.reloader.error
    return {
        "version": VERSION,
        "pid": os.getpid(),
        "workers": _pids(site),
        "ready": not site.stopping,
        "started": int(site.started),
        "uptime_s": int(time.time() - site.started),
        "config": str(mirror.config.file) if mirror.config.file else None,
        "data": str(mirror.config.data),
        "offline": mirror.config.offline,
        "upstream": mirror.upstream.name,
        "catalog_error": str(error) if error else None,
        "pairs": [await _pair(site, one, held) for one in catalog.snapshots()],
        "unlocked": [_unlocked(site, one.pair) for one in catalog.unlocked()],
        "fills": [
            {
                "repo": fill.entry.repo,
                "path": fill.entry.path,
                "size": fill.entry.size,
                "done": fill.front,
            }
            for fill in mirror.cache.fills
        ],
        "drift": _drift(site),
        "warming": site.upkeep.warming,
        "scrub": _scrub(site),
        "disk": {
            "free": free,
            "keep_free": mirror.config.keep_free,
            "room": None if free is None else free > mirror.config.keep_free,
        },
    }


def _free(config: Config) -> int | None:
    """None, if the disk does not say."""
    try:
        disk = os.statvfs(config.data)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


async def _pair(site: Site, snapshot: Snapshot, held: dict[Digest, bool]) -> Json:
    files = bytes_ = 0
    for number, entry in enumerate(snapshot.files.values()):
        if entry.digest not in held:
            try:
                size = await site.mirror.store.size(entry.digest)
            except StoreError:  # altered; or the disk fails, which is when somebody looks here
                size = None
            held[entry.digest] = size == entry.size
        if held[entry.digest]:
            files += 1
            bytes_ += entry.size
        if number % _YIELD_EVERY == 0:
            await asyncio.sleep(0)
    return {
        "pair": snapshot.pair,
        "commit": snapshot.commit,
        "fingerprint": snapshot.fingerprint,
        "license": snapshot.pin.license,
        "date": snapshot.pin.date,
        "files": len(snapshot.files),
        "bytes": snapshot.size,
        "held_files": files,
        "held_bytes": bytes_,
    }


def _drift(site: Site) -> Json:
    watch = site.drift
    return {
        "every_s": 0 if site.mirror.config.offline else site.mirror.config.drift_check,
        "checked": int(watch.checked) if watch.checked is not None else None,
        "pairs": [
            {
                "pair": one.pair,
                "locked": one.locked,
                "upstream_commit": one.upstream_commit,
                "upstream": one.upstream,
            }
            for one in watch.drifted
        ],
        "unknown": [{"pair": one.pair, "error": str(one.error)} for one in watch.unknown],
    }


def _scrub(site: Site) -> Json:
    last = site.upkeep.last
    return {
        "cycle_s": site.mirror.config.scrub,
        "checked": last.checked if last else 0,
        "total": last.total if last else 0,
        "rounds": last.rounds if last else 0,
        "bad": last.bad if last else 0,
    }


def _unlocked(site: Site, pair: str) -> Json:
    failures = {str(name): str(error) for name, error in site.autolock.failures.items()}
    return {"pair": pair, "error": failures.get(pair)}
