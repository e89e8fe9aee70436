"""git-lfs: where the large files of a clone are (git-lfs, docs/api/batch.md).

    POST /{repo}.git/info/lfs/objects/batch
         {"operation": "download", "objects": [{"oid", "size"}, …]}

An object's address is its `/resolve/` URL here: whoever may read one may read the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from aiohttp import web

from proxy.errors import ReadOnly
from proxy.hub import urls
from proxy.hub.names import RepoId
from proxy.hub.wire import Json
from proxy.pins.lock import Entry
from proxy.server import bodies
from proxy.server.incoming import reading
from proxy.server.site import Call

MEDIA_TYPE = "application/vnd.git-lfs+json"
_MOST = 1000  # objects in one request; git-lfs sends 100

Retell = Callable[[web.Response], web.Response]


def retell(response: web.Response) -> web.Response:
    """An error as git-lfs reads it."""
    assert isinstance(response.body, bytes)
    headers = {k: v for k, v in response.headers.items() if not k.startswith("Content-")}
    body = bodies.encode({"message": json.loads(response.body)["error"]})
    return web.Response(
        status=response.status, body=body, headers={**headers, "Content-Type": MEDIA_TYPE}
    )


async def batch(call: Call, repo: RepoId) -> web.Response:
    """Raises: Refused."""
    asked = await _asked(call.request)
    held = _objects(call, repo)
    base = f"{scheme(call.request)}://{call.request.headers.get('Host', '')}"
    objects = [_object(oid, size, held.get(oid), base) for oid, size in asked]
    body: Json = {"transfer": "basic", "objects": objects, "hash_algo": "sha256"}
    return web.Response(body=bodies.encode(body), headers={"Content-Type": MEDIA_TYPE})


def _objects(call: Call, repo: RepoId) -> dict[str, Entry]:
    """Every large file of a repository that may be served, by its sha256."""
    catalog = call.site.mirror.catalog
    catalog.snapshot(repo, None)  # raises, if it is not allowed
    return {
        entry.digest.hex: entry
        for snapshot in catalog.snapshots_of(repo)
        for entry in snapshot.files.values()
        if entry.lfs
    }


def _object(oid: str, size: int, entry: Entry | None, base: str) -> Json:
    if entry is None:
        problem: Json = {"code": 404, "message": "no locked revision has such a file"}
        return {"oid": oid, "size": size, "error": problem}
    href = base + urls.resolve(entry.repo, entry.commit, entry.path)
    # `authenticated`: git-lfs is not to look for a password.
    return {
        "oid": oid, "size": entry.size, "authenticated": True,
        "actions": {"download": {"href": href}},
    }  # fmt: skip


def scheme(request: web.BaseRequest) -> str:
    """What the client used: a proxy in front of us that ends TLS says so."""
    said = request.headers.get("X-Forwarded-Proto", "")
    return said if said in ("http", "https") else request.scheme


async def _asked(request: web.BaseRequest) -> list[tuple[str, int]]:
    async with reading(request, "request", "objects/batch", "it is no batch of objects"):
        raw = json.loads(await request.read())
        if raw["operation"] != "download":
            raise ReadOnly
        if len(raw["objects"]) > _MOST:
            raise ValueError(f"more than {_MOST} objects")
        return [(_text(one["oid"]), int(one["size"])) for one in raw["objects"]]


def _text(oid: object) -> str:
    """Raises: ValueError, for half a surrogate pair, which no answer could repeat."""
    text = str(oid)[:100]
    text.encode()
    return text
