"""What the next tier and the auditor read: the lock, blobs by digest, SHA256SUMS.

/-/lock                          allowlist.lock as it is in force
/-/sums/{repo}@{revision}        SHA256SUMS of a pair, for `sha256sum -c`
/-/blobs/sha256/{hex}            a blob that some served file has
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from aiohttp import web

from proxy.errors import EntryNotFound, InvalidName
from proxy.hub.names import Digest, Pair
from proxy.pins import lock as locks
from proxy.pins.catalog import Catalog
from proxy.pins.lock import Entry
from proxy.server import resolve
from proxy.server.site import Call

# digest → a file that has it, per catalog; goes when the catalog is replaced.
_INDEXES: WeakKeyDictionary[Catalog, dict[Digest, Entry]] = WeakKeyDictionary()


def lock(call: Call) -> web.StreamResponse:
    return call.json(locks.dumps(call.site.mirror.catalog.lock))


async def sums(call: Call, text: str) -> web.StreamResponse:
    """Raises: Refused."""
    pair = Pair(text)
    snapshot = await call.site.snapshot(pair.repo, pair.revision, patience_s=resolve.PATIENCE_S)
    return web.Response(
        text=locks.sums(snapshot.files.values()),
        headers={"X-Repo-Commit": snapshot.commit, "X-Fingerprint": snapshot.fingerprint},
    )


async def blob(call: Call, name: str) -> web.StreamResponse:
    """Raises: InvalidName, EntryNotFound (no served file has it)."""
    if not name.startswith("sha256/"):
        raise InvalidName("digest", name, "write /-/blobs/sha256/ and 64 hex digits")
    digest = Digest.of_hex(name.removeprefix("sha256/"))
    catalog = call.site.mirror.catalog
    index = _INDEXES.get(catalog)
    if index is None:
        index = _INDEXES[catalog] = {
            entry.digest: entry for one in catalog.snapshots() for entry in one.files.values()
        }
    entry = index.get(digest)
    if entry is None:
        raise EntryNotFound("this mirror", "0" * 40, digest)
    return await resolve.answer(call, entry, resolve.entry_headers(entry))
    call.by_digest = True
