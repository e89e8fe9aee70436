"""What tiers, auditors and devices read: the lock, blobs by digest, lists of files.

/-/lock                          allowlist.lock as it is in force
/-/sums/{repo}@{revision}        SHA256SUMS of a pair, for `sha256sum -c`
/-/files/{repo}@{revision}       what a device without a client of the Hub needs (deploy/device):
                                     # hubpin-files 1
                                     # pair acme/voice@v23
                                     # commit …40 hex…
                                     # fingerprint sha256:…
                                     # ref main                a line for each name of the commit
                                     # notice Only for …       if there is one
                                     {sha256} {etag} {size} {path}     in the order of SHA256SUMS
/-/blobs/sha256/{hex}            a blob that some served file has
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from weakref import WeakKeyDictionary

from aiohttp import web

from proxy.errors import EntryNotFound, InvalidName
from proxy.hub.names import Digest, Pair
from proxy.pins import lock as locks
from proxy.pins.catalog import Catalog, Snapshot
from proxy.pins.lock import Entry
from proxy.server import resolve
from proxy.server.site import Call

# Controls, and what Unicode calls a separator of lines or paragraphs.
_BREAK = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
# digest → a file that has it, per catalog; goes when the catalog is replaced.
_INDEXES: WeakKeyDictionary[Catalog, dict[Digest, Entry]] = WeakKeyDictionary()


def lock(call: Call) -> web.StreamResponse:
    return call.json(locks.dumps(call.site.mirror.catalog.lock))


async def sums(call: Call, text: str) -> web.StreamResponse:
    """Raises: Refused."""
    snapshot = await _snapshot(call, Pair(text))
    return web.Response(
        text=locks.sums(snapshot.files.values()),
        headers={"X-Repo-Commit": snapshot.commit, "X-Fingerprint": snapshot.fingerprint},
    )


async def files(call: Call, text: str) -> web.StreamResponse:
    """Raises: Refused."""
    snapshot = await _snapshot(call, Pair(text))
    catalog = call.site.mirror.catalog
    names = [
        name
        for name, _, _ in catalog.refs(snapshot.repo)
        if catalog.snapshot(snapshot.repo, name).pair == snapshot.pair
    ]
    return web.Response(text="".join(f"{line}\n" for line in _lines(snapshot, names)))


async def _snapshot(call: Call, pair: Pair) -> Snapshot:
    """Of a listed pair its own files, so that they add up to its fingerprint. Raises: Refused."""
    own = call.site.mirror.catalog.own(pair)
    if own is not None:
        return own
    return await call.site.snapshot(pair.repo, pair.revision, patience_s=resolve.PATIENCE_S)


def _lines(snapshot: Snapshot, names: list[str]) -> Iterator[str]:
    yield "# hubpin-files 1"
    yield f"# pair {snapshot.pair}"
    yield f"# commit {snapshot.commit}"
    yield f"# fingerprint {snapshot.fingerprint}"
    for name in names:
        yield f"# ref {name}"
    # A notice may have several lines, and whatever else an editor lets through.
    notice = _BREAK.sub(" ", snapshot.allowed.notice).strip()
    if notice:
        yield f"# notice {notice}"
    for entry in sorted(snapshot.files.values(), key=lambda one: one.path.encode()):
        yield f"{entry.digest.hex} {entry.etag} {entry.size} {entry.path}"


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
    call.by_digest = True
    return await resolve.answer(call, entry, call.site.heads(entry))
