"""What the Hub and its CDN answer, as a function of the world; no sockets here.

/{repo}/resolve/{rev}/{path}    LFS: 302 to the CDN; else the bytes (or 307 to resolve-cache)
/api/{type}/{repo}/…            in hub_api.py
cdn /repos/{ab}/{sha256}?…      the bytes, for a signature that this site has issued
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from tests.fakes import hub_api
from tests.fakes.answers import (
    Address,
    bare,
    error,
    file_bytes,
    parse,
    redirect,
    split,
    xml,
)
from tests.fakes.content import Literal
from tests.fakes.http1 import Reply, Request, Seen
from tests.fakes.settings import Settings
from tests.fakes.world import Commit, File, Repo, World


@dataclass(slots=True)
class Issued:
    """A signed URL that some client was sent to."""

    repo: str
    path: str
    file: File
    expires: float  # Unix seconds
    revoked: bool = False


@dataclass(slots=True)
class Site:
    """The state of a fake Hub: its world, its settings and the URLs that it signed."""

    world: World
    settings: Settings
    hub_url: str = ""
    cdn_urls: list[str] = field(default_factory=list)
    issued: dict[str, Issued] = field(default_factory=dict)

    def answer(self, host: str, request: Request, seen: Seen) -> Reply:
        """The honest answer; `seen` is told what was asked for."""
        if host == "cdn":
            return self._blob(request, seen)
        address = parse(request.raw_path)
        seen.route, seen.repo = address.route, address.repo
        if host == "mirror" and address.route in self.settings.mirror_redirects:
            return redirect(308, self.hub_url + request.target)
        refusal = self._refusal(address, request)
        if refusal is not None:
            return refusal
        if address.route in ("resolve", "raw", "resolve-cache"):
            reply = self._file(address, request, seen)
        else:
            reply = hub_api.answer(self.world, self.settings, host, address, request)
        group = "resolvers" if address.route in ("resolve", "raw", "resolve-cache") else "api"
        reply.set("RateLimit", f'"{group}";r=4999;t=300')
        reply.set("X-Request-Id", f"Root=1-{seen.number:08x}")
        return reply

    def _refusal(self, address: Address, request: Request) -> Reply | None:
        """What the Hub says to who may not come in, or None."""
        sent = request.headers.get("authorization", "")
        if sent and sent != f"Bearer {self.settings.token}":
            return error(401, "", "Invalid credentials in Authorization header")
        if not address.repo:
            return None
        moved = self._moved(address.repo)
        if moved:
            old, new = (quote(bare(name)) for name in (address.repo, moved))
            return redirect(307, request.target.replace(f"/{old}", f"/{new}", 1))
        repo = self.world.repos.get(address.repo)
        if repo is None or (repo.private and not sent):
            # A stranger is not told whether it exists.
            return error(
                404 if sent else 401, "RepoNotFound",
                "Repository not found" if sent else "Invalid username or password.",
            )  # fmt: skip
        if repo.gated and address.route in ("resolve", "raw", "resolve-cache", "auth-check"):
            if not sent:
                return error(
                    self.settings.gated_status, "GatedRepo",
                    f"Access to {address.repo} is restricted. You must have access to it and be "
                    "authenticated to access it. Please log in.",
                )  # fmt: skip
            if address.repo in self.settings.closed:
                return error(
                    403, "GatedRepo",
                    f"Access to {address.repo} is restricted and you are not in the authorized "
                    "list. Ask for access.",
                )  # fmt: skip
        return None

    def _moved(self, name: str) -> str:
        """Where a renamed or differently spelt repository is now, or ""."""
        if name in self.world.repos:
            return ""
        if name in self.world.renamed:
            return self.world.renamed[name]
        return next((r for r in self.world.repos if r.lower() == name.lower()), "")

    def _file(self, address: Address, request: Request, seen: Seen) -> Reply:
        if request.method not in ("GET", "HEAD"):
            return error(405, "", "Method not allowed")
        repo = self.world.repos[address.repo]
        commit, path = split(repo, address.tail)
        seen.path = path
        if commit is None:
            return error(404, "RevisionNotFound", f"Invalid rev id: {unquote(address.tail[0])}")
        file = commit.files.get(path)
        if file is None:
            reply = error(404, "EntryNotFound", "Entry not found")
            reply.set("X-Repo-Commit", commit.sha)
            return reply
        if address.route == "raw":
            return file_bytes(File(Literal(file.pointer), lfs=False) if file.lfs else file, request)
        if file.lfs:
            reply = redirect(302, self.sign(repo, path, file))
            reply.set("X-Linked-Size", str(file.size))
            reply.set("X-Linked-Etag", f'"{file.etag}"')
            if self.settings.xet:
                self._advertise_xet(reply, repo, commit, file)
        elif self.settings.resolve_cache and address.route == "resolve":
            kind, name = repo.id.type.value, repo.id.name
            target = f"/api/resolve-cache/{kind}/{name}/{commit.sha}/{quote(path, safe='')}"
            reply = redirect(307, f"{target}?{quote(path, safe='')}=&etag=%22{file.etag}%22")
            reply.set("X-Linked-Size", str(file.size))
            reply.set("X-Linked-Etag", f'"{file.etag}"')
        else:
            reply = file_bytes(file, request)
        reply.set("X-Repo-Commit", commit.sha)
        return reply

    def _advertise_xet(self, reply: Reply, repo: Repo, commit: Commit, file: File) -> None:
        api = f"{self.hub_url}/api/{repo.id.type.value}/{repo.id.name}"
        reply.set("X-Xet-Hash", file.xet_hash)
        reply.set(
            "Link",
            f'<{api}/xet-read-token/{commit.sha}>; rel="xet-auth", '
            f'<{self.hub_url}/v1/reconstructions/{file.xet_hash}>; rel="xet-reconstruction-info"',
        )

    def sign(self, repo: Repo, path: str, file: File) -> str:
        """A URL at the CDN that opens this file for a while."""
        serial = len(self.issued)
        signature = hashlib.sha256(f"{serial} {repo.id} {path}".encode()).hexdigest()[:40]
        expires = time.time() + self.settings.url_life_s
        self.issued[signature] = Issued(str(repo.id), path, file, expires)
        origin = self.cdn_urls[serial % len(self.cdn_urls)]
        sha = file.digest.hex
        name = quote(f"inline; filename*=UTF-8''{quote(path.rpartition('/')[2])};", safe="")
        return (
            f"{origin}/repos/{sha[:2]}/{sha}?response-content-disposition={name}"
            f"&Expires={int(expires)}&Signature={signature}&Key-Pair-Id=KFAKE"
        )

    def _blob(self, request: Request, seen: Seen) -> Reply:
        seen.route = "blob"
        issued = self.issued.get(request.query.get("Signature", ""))
        if issued is not None:
            seen.repo, seen.path = issued.repo, issued.path
        if "authorization" in request.headers:
            return xml(400, "InvalidArgument", "Only one auth mechanism allowed")
        if issued is None or not request.raw_path.endswith(f"/{issued.file.digest.hex}"):
            return xml(403, "AccessDenied", "Access denied")
        if issued.revoked or time.time() > issued.expires:
            return xml(403, "AccessDenied", "Request has expired")
        if request.method not in ("GET", "HEAD"):
            return xml(405, "MethodNotAllowed", "Method not allowed")
        reply = file_bytes(issued.file, request)
        if self.settings.ignore_range and reply.status in (206, 416):
            reply = file_bytes(issued.file, Request(request.method, request.target, {}, b""))
        return reply
