"""GET and HEAD of one file: `/{repo}/resolve/{revision}/{path}` and `/raw/`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from aiohttp import web

from proxy.errors import PartDistrusted
from proxy.hub import gitoid
from proxy.hub.urls import FileAddress
from proxy.pins.lock import Entry
from proxy.server import errors, ranges, ready, send
from proxy.server.ready import Head
from proxy.server.site import Call

# A HEAD must be answered within the ten seconds that the Hub's client waits for it.
PATIENCE_S = 8.0
# huggingface_hub ≥ 0.31 refuses to fetch more than this over HTTP if it knows the size
# (constants.py, MAX_HTTP_DOWNLOAD_SIZE); from 1.31 on it does without knowing.
MAX_HTTP_DOWNLOAD = 50_000_000_000
_OF_BODY = ("Content-Type", "Content-Disposition")
_HUB = re.compile(r"\bhf_hub/(\d{1,4})\.(\d{1,4})")


async def file(call: Call, address: FileAddress) -> web.StreamResponse:
    """A file of a locked commit, or its head. Bytes that are not held are fetched meanwhile."""
    revision, rest = call.site.mirror.catalog.split(address.repo, address.rest)
    snapshot = await call.site.snapshot(address.repo, revision, patience_s=PATIENCE_S)
    entry = snapshot.entry("/".join(rest))
    if address.verb == "raw" and entry.lfs:
        return _pointer(entry)
    notice = snapshot.allowed.notice
    warning = _notice(str(snapshot.pair), notice) if notice else ""
    return await answer(call, entry, call.site.heads(entry, warning))


async def answer(call: Call, entry: Entry, head: Head) -> web.StreamResponse:
    """The entry's bytes, as far as the request asks for them."""
    request, headers = call.request, head.headers
    wanted = ranges.wanted(request.method, request.headers, entry.etag, entry.size)
    match wanted:
        case ranges.Whole():
            pass
        case ranges.NotModified():
            return web.Response(status=304, headers=headers)
        case ranges.PreconditionFailed():
            return web.Response(status=412, headers=headers)
        case ranges.Unsatisfiable():
            return _unsatisfiable(entry, headers)
    if request.method == "HEAD":
        return _head(call, head, entry.size)
    if entry.size == 0:
        call.served(entry, (0, 0), 0)
        if "Range" in request.headers:
            headers = {**headers, "Content-Range": "bytes */0"}
        return web.Response(headers=headers, body=b"")
    if isinstance(wanted, ranges.Whole):
        body = send.at_once(call, entry)
        if body is not None:
            return ready.answer(request, head, call.id, body)

    def plan() -> send.Plan:
        if not isinstance(wanted, ranges.Slice):
            return send.Plan((0, entry.size), 200, headers)
        if _could_complete_a_lie(call, entry, wanted):
            if wanted.stop < entry.size:  # who asks for pieces takes a 200 for the piece, or fails
                raise PartDistrusted(entry.path)
            return send.Plan((0, entry.size), 200, headers)
        start, stop = wanted.start, wanted.stop
        part = f"bytes {start}-{stop - 1}/{entry.size}"
        return send.Plan((start, stop), 206, {**headers, "Content-Range": part})

    return await send.send(call, entry, plan)


def _could_complete_a_lie(call: Call, entry: Entry, wanted: ranges.Slice) -> bool:
    """Whether these bytes may be put behind a wrong beginning.

    What starts beyond what was ever shown unverified continues nothing that is wrong.
    """
    if wanted.start == 0:
        return False
    if not wanted.open_ended and "hf_hub/" in call.request.headers.get("User-Agent", ""):
        # The Hub's client resumes with `N-` only. Bounded ranges are its file system's, which
        # takes the body of any 200 for the range (hf_file_system.py, _fetch_range).
        return False
    return wanted.start <= call.site.mirror.cache.misled.limit(entry.digest)


def _head(call: Call, head: Head, size: int) -> web.StreamResponse:
    agent = call.request.headers.get("User-Agent", "")
    if size > MAX_HTTP_DOWNLOAD and _does_without_size(agent):
        headers = {name: text for name, text in head.headers.items() if name != "X-Linked-Size"}
        return web.StreamResponse(headers=headers)
    return ready.answer(call.request, head, call.id, b"")


def _does_without_size(agent: str) -> bool:
    found = _HUB.search(agent)
    return found is not None and (int(found[1]), int(found[2])) >= (1, 31)


def _unsatisfiable(entry: Entry, headers: Mapping[str, str]) -> web.Response:
    kept = {name: text for name, text in headers.items() if name not in _OF_BODY}
    return web.Response(status=416, headers={**kept, "Content-Range": f"bytes */{entry.size}"})


def _pointer(entry: Entry) -> web.Response:
    """What git holds for an LFS file: the Hub's answer on `/raw/`."""
    body = gitoid.lfs_pointer(entry.digest, entry.size)
    # To HEAD aiohttp sends the length of the body and not the body.
    return web.Response(
        body=body,
        content_type="text/plain",
        headers={
            "ETag": f'"{entry.git_oid}"',
            "X-Repo-Commit": entry.commit,
        },
    )


def _notice(pair: str, notice: str) -> str:
    return errors.header_text(f"hubpin-notice {pair}; [mirror] {notice}")
