"""The Hub's JSON API for what is locked: info, tree, paths-info, refs, commits, lists."""

from __future__ import annotations

import json

from aiohttp import web

from proxy.errors import InvalidName
from proxy.hub.names import RepoId
from proxy.hub.urls import ApiAddress, ListAddress
from proxy.pins.catalog import Snapshot
from proxy.server import bodies
from proxy.server.incoming import reading
from proxy.server.site import Call

# These calls have no timeout in any client and are never retried: better slow than wrong.
PATIENCE_S = 90.0


async def repository(call: Call, address: ApiAddress) -> web.StreamResponse:
    """`/api/{type}/{repo}/…`"""
    match address.verb:
        case "" | "revision":
            return await info(call, address)
        case "tree":
            return await tree(call, address)
        case "paths-info":
            return await paths_info(call, address)
        case "refs":
            return refs(call, address.repo)
        case "commits":
            snapshot, _ = await _snapshot(call, address)
            return call.json(bodies.commits(snapshot))
    call.site.mirror.catalog.split(address.repo, ("main",))  # raises, if it is not allowed
    return call.json(b"{}")  # auth-check


async def info(call: Call, address: ApiAddress) -> web.StreamResponse:
    snapshot, rest = await _snapshot(call, address)
    if rest:
        raise InvalidName("revision", "/".join(address.rest), "no such revision is known")
    body = call.site.bodies.info(snapshot, blobs=call.flag("blobs"))
    return call.json(body, {"X-Repo-Commit": snapshot.commit})


async def tree(call: Call, address: ApiAddress) -> web.StreamResponse:
    """All of it on one page: clients that follow `Link` do so blindly, others not at all."""
    snapshot, rest = await _snapshot(call, address)
    folder = "/".join(rest).strip("/")
    body = call.site.bodies.tree(snapshot, folder, recursive=call.flag("recursive"))
    return call.json(body, {"X-Repo-Commit": snapshot.commit})


async def paths_info(call: Call, address: ApiAddress) -> web.StreamResponse:
    """The paths come as a form (Python) or as JSON (JavaScript)."""
    snapshot, _ = await _snapshot(call, address)
    paths = await _paths(call.request)
    return call.json(bodies.paths_info(snapshot, paths), {"X-Repo-Commit": snapshot.commit})


def refs(call: Call, repo: RepoId) -> web.StreamResponse:
    pairs = call.site.mirror.catalog.refs(repo)
    return call.json(bodies.refs(pairs, pull_requests=call.flag("include_prs")))


def listing(call: Call, address: ListAddress) -> web.StreamResponse:
    """Repositories of a type that are locked, filtered like the Hub's list."""
    query = call.request.query
    search, author = query.get("search", "").lower(), query.get("author", "")
    limit = query.get("limit", "")
    catalog = call.site.mirror.catalog
    found: dict[RepoId, Snapshot] = {}
    for snapshot in catalog.snapshots():
        name = snapshot.repo.name
        if snapshot.repo.type is not address.type or search not in name.lower():
            continue
        if not author or name.startswith(f"{author}/"):
            found.setdefault(snapshot.repo, snapshot)
    shown = list(found.values())
    if limit.isascii() and limit.isdigit():
        shown = shown[: int(limit[:9])]
    return call.json(bodies.listing(shown))


async def _snapshot(call: Call, address: ApiAddress) -> tuple[Snapshot, tuple[str, ...]]:
    revision: str | None = None
    rest: tuple[str, ...] = ()
    if address.rest and address.rest != ("",):
        revision, rest = call.site.mirror.catalog.split(address.repo, address.rest)
    return await call.site.snapshot(address.repo, revision, patience_s=PATIENCE_S), rest


async def _paths(request: web.BaseRequest) -> list[str]:
    async with reading(request, "request", "paths-info", "its body names no paths"):
        if request.content_type == "application/json":
            paths = json.loads(await request.read())["paths"]
            if isinstance(paths, str):
                paths = [paths]
            return [path for path in paths if isinstance(path, str)]
        form = await request.post()
        return [path for path in form.getall("paths", []) if isinstance(path, str)]
