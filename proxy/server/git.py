"""`git clone` of what is locked: read-only smart HTTP, protocol versions 2, 1 and 0.

    GET  /{repo}[.git]/info/refs?service=git-upload-pack    what there is
    POST /{repo}[.git]/git-upload-pack                      ls-refs and fetch (v2), or fetch (v0)

The repository is made of the lock (`pins/gitrepo.py`): every allowed revision is a ref to a commit
without parents. So every clone is complete at depth 1, `have` lines change nothing, and a filter is
ignored as by any server that does not offer it (git then says so).

git prints the text of a refusal after `remote:` if it is text/plain, and asks for a password when
it sees a 401: there is none.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from aiohttp import web

from proxy.errors import InvalidName, ReadOnly
from proxy.hub.gitpack import BAND_ROOM, DELIMITER, FLUSH, Mark, band, banded, pkt, pkts
from proxy.hub.names import GitOid, RepoId
from proxy.hub.urls import GitAddress
from proxy.pins.gitrepo import GitCommit, ref_name
from proxy.server import errors, lfs
from proxy.server.incoming import reading
from proxy.server.site import Call
from proxy.telemetry import metrics

PATIENCE_S = 90.0  # git has no timeout of its own
_AGENT = "agent=hubpin"
_CAPABILITIES = f"side-band-64k no-progress ofs-delta shallow object-format=sha1 {_AGENT}"
_SEND = 16 * BAND_ROOM  # bytes of a pack that are framed and written at once


@dataclass(frozen=True, slots=True)
class Ref:
    """A ref and what it points to; HEAD also says which branch it stands for."""

    name: str
    commit: GitCommit
    target: str = ""


@dataclass(slots=True)
class Wish:
    """What a fetch asks for."""

    wants: list[str] = field(default_factory=list)
    haves: int = 0
    done: bool = False
    deepens: bool = False
    bands: bool = False


def speaks_git(address: GitAddress) -> Callable[[web.Response], web.Response]:
    """How refusals are told to who asked this."""
    return lfs.retell if address.service.startswith("info/lfs/") else as_text


def as_text(response: web.Response) -> web.Response:
    """An error as text, which git prints."""
    assert isinstance(response.body, bytes)
    headers = {k: v for k, v in response.headers.items() if not k.startswith("Content-")}
    message = str(json.loads(response.body)["error"])
    return web.Response(status=response.status, text=f"{message}\n", headers=headers)


async def repository(call: Call, address: GitAddress) -> web.StreamResponse:
    """Raises: Refused, Busy, UpstreamError, StoreError."""
    request = call.request
    match request.method, address.service:
        case "POST", "info/lfs/objects/batch":
            return await lfs.batch(call, address.repo)
        case (("GET" | "HEAD"), "info/refs"):
            if request.query.get("service") == "git-receive-pack":
                raise ReadOnly
            if request.query.get("service") != "git-upload-pack":
                raise InvalidName("service", request.query_string, "only smart HTTP is spoken here")
            refs = await _refs(call, address.repo)
            return _answer("advertisement", b"".join(_advertise(refs, _version(request))))
        case "POST", "git-upload-pack":
            refs = await _refs(call, address.repo)
            lines = await _lines(request)
            if _version(request) < 2:
                return await _fetch_v0(call, refs, lines)
            if _command(lines) == b"ls-refs":
                return _answer("result", b"".join(_ls_refs(refs, lines)))
            return await _fetch_v2(call, refs, lines)
        case (("GET" | "HEAD"), ("git-upload-pack" | "info/lfs/objects/batch")):
            return call.retell(errors.not_allowed("POST"))
    raise ReadOnly


async def _refs(call: Call, repo: RepoId) -> list[Ref]:
    """HEAD and every locked revision; at least one, or a refusal."""
    head = await call.site.snapshot(repo, None, patience_s=PATIENCE_S)
    catalog, commits = call.site.mirror.catalog, call.site.commits
    refs = [
        Ref(ref_name(name, kind), commits.of(catalog.snapshot(repo, name)))
        for name, kind, _ in catalog.refs(repo)
    ]
    refs.sort(key=lambda ref: ref.name)
    commit = commits.of(head)
    same = [ref.name for ref in refs if ref.commit is commit and ref.name.startswith("refs/heads/")]
    main = "refs/heads/main"
    return [Ref("HEAD", commit, main if main in same else next(iter(same), "")), *refs]


def _advertise(refs: Sequence[Ref], version: int) -> Iterable[bytes]:
    if version == 2:
        yield pkt("version 2\n")
        for line in (_AGENT, "ls-refs", "fetch=shallow", "object-format=sha1"):
            yield pkt(f"{line}\n")
        yield FLUSH
        return
    yield pkt("# service=git-upload-pack\n")
    yield FLUSH
    if version == 1:
        yield pkt("version 1\n")
    head = refs[0]
    symref = f" symref=HEAD:{head.target}" if head.target else ""
    yield pkt(f"{head.commit.oid} HEAD\0{_CAPABILITIES}{symref}\n")
    for ref in refs[1:]:
        yield pkt(f"{ref.commit.oid} {ref.name}\n")
    yield FLUSH


def _ls_refs(refs: Iterable[Ref], lines: Sequence[bytes | Mark]) -> Iterable[bytes]:
    """gitprotocol-v2(5), "ls-refs"."""
    prefixes = tuple(
        line.removeprefix(b"ref-prefix ").decode(errors="replace")
        for line in lines
        if isinstance(line, bytes) and line.startswith(b"ref-prefix ")
    )
    for ref in refs:
        if not prefixes or ref.name.startswith(prefixes):
            symref = f" symref-target:{ref.target}" if ref.target and b"symrefs" in lines else ""
            yield pkt(f"{ref.commit.oid} {ref.name}{symref}\n")
    yield FLUSH


async def _fetch_v2(
    call: Call, refs: Sequence[Ref], lines: Sequence[bytes | Mark]
) -> web.StreamResponse:
    """gitprotocol-v2(5), "fetch". Acknowledging nothing makes the client ask until it is done."""
    if _command(lines) != b"fetch":
        raise InvalidName("git command", repr(_command(lines)), "ls-refs and fetch are spoken here")
    wish = _wish(lines)
    if not wish.done and wish.haves:
        return _answer("result", pkt("acknowledgments\n") + pkt("NAK\n") + FLUSH)
    before = pkt("packfile\n")
    if wish.deepens:  # no commit has parents, so none becomes shallow
        before = pkt("shallow-info\n") + DELIMITER + before
    return await _send_pack(call, _wanted(refs, wish), before)


async def _fetch_v0(
    call: Call, refs: Sequence[Ref], lines: Sequence[bytes | Mark]
) -> web.StreamResponse:
    """gitprotocol-pack(5), without multi_ack: one NAK before the pack."""
    wish = _wish(lines)
    before = FLUSH if wish.deepens else b""
    if not wish.done:
        return _answer("result", before + (pkt("NAK\n") if wish.haves else b""))
    if not wish.bands:
        raise InvalidName("git request", "fetch", "side-band-64k is needed")
    return await _send_pack(call, _wanted(refs, wish), before + pkt("NAK\n"))


def _wish(lines: Iterable[bytes | Mark]) -> Wish:
    wish = Wish()
    for line in lines:
        if isinstance(line, Mark):
            continue
        word, _, rest = line.partition(b" ")
        if word == b"want":
            oid, _, capabilities = rest.partition(b" ")
            wish.wants.append(oid.decode(errors="replace"))
            wish.bands |= b"side-band-64k" in capabilities.split()
        elif word == b"have":
            wish.haves += 1
        elif word == b"done":
            wish.done = True
        elif word.startswith(b"deepen"):
            wish.deepens = True
    return wish


def _wanted(refs: Iterable[Ref], wish: Wish) -> list[GitCommit]:
    """Raises: InvalidName, for what is not the tip of a ref: nothing else is handed out."""
    tips = {ref.commit.oid: ref.commit for ref in refs}
    if not wish.wants:
        raise InvalidName("git request", "fetch", "it wants nothing")
    wanted = [GitOid(oid) for oid in dict.fromkeys(wish.wants)]
    for oid in wanted:
        if oid not in tips:
            raise InvalidName("git object", oid, "it is not what a locked revision points to")
    return [tips[oid] for oid in wanted]


async def _send_pack(call: Call, commits: Sequence[GitCommit], before: bytes) -> web.StreamResponse:
    pack = await call.site.packs.open(commits)
    try:
        size = os.fstat(pack.fileno()).st_size
        response = web.StreamResponse(headers={**_headers("result"), **call.headers})
        response.content_length = len(before) + banded(size) + len(FLUSH)
        await response.prepare(call.request)
        await response.write(before)
        while framed := await asyncio.to_thread(_framed, pack):
            await response.write(framed)
            metrics.SENT_BYTES.inc(len(framed))
        await response.write(FLUSH)
        for commit in commits:  # files that are LFS come by another request
            for entry in commit.files.values():
                call.served(entry, (0, entry.size), entry.size)
        return response
    finally:
        pack.close()


def _framed(pack: BinaryIO) -> bytes:
    data = pack.read(_SEND)
    return b"".join(band(1, data[at : at + BAND_ROOM]) for at in range(0, len(data), BAND_ROOM))


def _answer(what: str, body: bytes) -> web.Response:
    return web.Response(body=body, headers=_headers(what))


def _headers(what: str) -> dict[str, str]:
    return {
        "Content-Type": f"application/x-git-upload-pack-{what}",
        "Cache-Control": "no-cache",
    }


def _version(request: web.BaseRequest) -> int:
    """`Git-Protocol: version=2`, among other keys perhaps; gitprotocol-http(5)."""
    keys = request.headers.get("Git-Protocol", "").split(":")
    return 2 if "version=2" in keys else 1 if "version=1" in keys else 0


def _command(lines: Sequence[bytes | Mark]) -> bytes:
    first = lines[0] if lines else b""
    return first.removeprefix(b"command=") if isinstance(first, bytes) else b""


async def _lines(request: web.BaseRequest) -> list[bytes | Mark]:
    async with reading(request, "git request", "body", "it is none"):
        return list(pkts(await request.read()))
