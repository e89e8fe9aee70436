"""The Hub's JSON endpoints: `/api/{type}/{repo}/…`."""

from __future__ import annotations

from urllib.parse import parse_qs, quote, unquote, urlencode

import msgspec

from proxy.hub import wire
from proxy.hub.wire import Json, RefKind
from tests.fakes.answers import Address, error, json_answer, split
from tests.fakes.http1 import Reply, Request
from tests.fakes.settings import Settings
from tests.fakes.world import Commit, Repo, World, entry_json, info_json, tree_json


def answer(
    world: World, settings: Settings, host: str, address: Address, request: Request
) -> Reply:
    route = address.route
    if route == "list":
        return _list(world, address.tail[0], request)
    if route == "whoami-v2":
        return error(401, "", "Invalid username or password.")
    repo = world.repos.get(address.repo)
    if repo is None:
        return error(404, "", "Sorry, we can't find the page you are looking for.")
    if route == "auth-check":
        return json_answer({})
    if route == "refs":
        return _refs(repo, request)
    tail = address.tail or ("main",)
    commit, path = split(repo, tail)
    if commit is None:
        return error(404, "RevisionNotFound", f"Invalid rev id: {unquote(tail[0])}")
    if route in ("info", "revision"):
        raw = info_json(repo, commit, blobs=_true(request.query.get("blobs")))
        return json_answer(raw if settings.xet else wire.strip_xet(raw))
    if route == "tree":
        return _tree(settings, host, request, commit, path)
    if route == "commits":
        return json_answer([_commit_json(one) for one in repo.history(commit.sha)])
    if route == "paths-info" and request.method == "POST":
        return _paths_info(settings, request, commit)
    return error(404, "", "Not found")


def _tree(settings: Settings, host: str, request: Request, commit: Commit, folder: str) -> Reply:
    query = request.query
    rows = tree_json(commit, folder, recursive=_true(query.get("recursive")))
    if rows is None:
        reply = error(404, "EntryNotFound", f"{folder} does not exist on {commit.sha}")
        reply.set("X-Repo-Commit", commit.sha)
        return reply
    most = settings.page_size
    if _true(query.get("expand")):  # the Hub then sends a twentieth
        most = max(1, most // 20)
    if query.get("limit", "").isdigit():
        most = min(most, max(1, int(query["limit"])))
    start = int(query.get("cursor") or "0")
    page = rows[start : start + most]
    reply = json_answer(page if settings.xet else wire.strip_xet(page))
    if start + most < len(rows):
        scheme = "https" if settings.tls and host == "hub" else "http"
        origin = settings.link_origin or f"{scheme}://{request.headers.get('host', '')}"
        if host == "mirror" and not settings.link_origin:
            origin = "https://huggingface.co"
        following = urlencode({**query, "cursor": str(start + most)})
        reply.set("Link", f'<{origin}{request.raw_path}?{following}>; rel="next"')
    return reply


def _paths_info(settings: Settings, request: Request, commit: Commit) -> Reply:
    """Python sends a form, JavaScript JSON."""
    paths: list[str]
    if "json" in request.headers.get("content-type", ""):
        raw = msgspec.json.decode(request.body)
        paths = raw["paths"] if isinstance(raw["paths"], list) else [raw["paths"]]
    else:
        paths = parse_qs(request.body.decode()).get("paths", [])
    rows: list[Json] = []
    for path in paths:
        if path in commit.files:
            rows.append(entry_json(path, commit.files[path]))
        elif path in commit.folders:
            rows.append(wire.folder_json(path, commit.folders[path]))
    return json_answer(rows if settings.xet else wire.strip_xet(rows))


def _refs(repo: Repo, request: Request) -> Reply:
    lists = {
        RefKind.BRANCH: repo.branches,
        RefKind.TAG: repo.tags,
        RefKind.CONVERT: repo.converts,
        RefKind.PULL: repo.pulls,
    }
    if not _true(request.query.get("include_prs")):
        del lists[RefKind.PULL]
    return json_answer(
        {
            kind.value: [wire.ref_json(name, kind, sha) for name, sha in sorted(refs.items())]
            for kind, refs in lists.items()
        }
    )


def _commit_json(commit: Commit) -> Json:
    return {
        "id": commit.sha,
        "title": commit.title,
        "message": "",
        "authors": [{"user": "acme"}],
        "date": commit.date,
    }


def _list(world: World, kind: str, request: Request) -> Reply:
    query = request.query
    found = [
        repo
        for repo in world.repos.values()
        if repo.id.type.value == kind
        and not repo.private
        and query.get("search", "").lower() in repo.id.name.lower()
        and repo.id.name.startswith(query.get("author", ""))
    ]
    return json_answer([info_json(repo, repo.at()) for repo in found if repo.find("main")])


def _true(value: str | None) -> bool:
    return (value or "").lower() in ("true", "1")


def api_path(repo: Repo, *parts: str) -> str:
    """`/api/models/org/name/tree/main`, for clients written by hand in tests."""
    tail = "".join(f"/{quote(part, safe='')}" for part in parts)
    return f"/api/{repo.id.type.value}/{repo.id.name}{tail}"
