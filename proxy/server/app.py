"""Requests → handlers; nothing else.

There is no router: a Hub URL is only understood by `hub/urls.py`, because where its revision ends
depends on the lock, and a dictionary of repositories does not grow slower with their number.
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets
from dataclasses import replace

from aiohttp import web

from proxy.errors import EntryNotFound, InvalidName, MirrorError, ReadOnly, Refused
from proxy.hub import urls
from proxy.hub.urls import (
    Address,
    ApiAddress,
    FileAddress,
    GitAddress,
    ListAddress,
    OtherAddress,
    RegistryAddress,
)
from proxy.server import api, blobs, cors, errors, git, health, lfs, registry, resolve
from proxy.server.site import Call, Site
from proxy.telemetry import metrics

log = logging.getLogger(__name__)

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# Clients probe for files that need not be there, and scanners for anything.
_HARMLESS = (EntryNotFound, InvalidName)
# RFC 9112 §3.2: exactly one host, with a port perhaps. No userinfo, no path, no list.
_HOST = re.compile(r"(?:[A-Za-z0-9._~\-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(r"https?://([^/?#]+)(.*)", re.IGNORECASE)
_WELCOME = """hubpin: a mirror of the Hugging Face Hub that serves locked versions only.

Use it:   export HF_ENDPOINT={base}
What it serves, and at which commits:   {base}/-/status
"""


class Front:
    """Answers every request. Its errors go through one place: `__call__`."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._run = secrets.token_hex(4)
        self._count = itertools.count(1)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        call = Call(self._site, request, f"{self._run}-{next(self._count):x}")
        try:
            response = await self._route(call)
        except MirrorError as e:
            response = call.retell(errors.answer(e, request, self._site.mirror.config.contact))
            self._log(call, response.status, e)
            if isinstance(e, Refused) and not isinstance(e, _HARMLESS):
                call.refused(e, response.status)
        except web.HTTPException as e:  # aiohttp's own: a body that is too large
            response = errors.plain(e.status, "BadRequest", e.reason)
        except ConnectionError:
            raise
        except Exception:
            if request.writer.output_size > 0:  # aiohttp logs it and hangs up
                raise
            response = self._failed(call)
        metrics.count_request(call.handed or response.status)
        if not response.prepared:
            response.headers["X-Request-Id"] = call.id
            response.headers.update(self._site.headers)
        return response

    async def _route(self, call: Call) -> web.StreamResponse:
        request = call.request
        host = request.headers.get("Host")
        target = _origin_form(request.raw_path, host or "")
        if target is None:
            return errors.plain(404, "NotFound", "this is a mirror, not a forward proxy")
        if (host is None and request.version >= (1, 1)) or (host and not _HOST.fullmatch(host)):
            raise InvalidName("Host header", host or "", "RFC 9112 asks for one host")
        if "#" in target:
            raise InvalidName("target", target[:500], "RFC 9112 §3.2 knows no fragment in it")
        path = target.partition("?")[0]
        if self._site.mirror.config.cors and cors.is_preflight(request):
            return cors.preflight(request)
        if path.startswith("/-/") or path in ("/", "/metrics"):
            return await self._own(call, path)
        address = self._listed(urls.parse(path))
        if isinstance(address, GitAddress):
            call.retell = git.speaks_git(address)
            return await git.repository(call, address)
        if request.method not in ("GET", "HEAD"):
            return await self._other_method(call, address)
        match address:
            case FileAddress():
                return await resolve.file(call, address)
            case ApiAddress(verb="paths-info"):
                return errors.not_allowed("POST")
            case ApiAddress():
                return await api.repository(call, address)
            case ListAddress():
                return api.listing(call, address)
            case RegistryAddress():
                call.retell = registry.retell
                return await registry.answer(call, address)
        return self._rest(call, address)

    def _listed(self, address: Address) -> Address:
        """The same, with the name under which the repository is on the list."""
        if isinstance(address, (ListAddress, OtherAddress)):
            return address
        listed = self._site.mirror.catalog.listed(address.repo)
        return address if listed == address.repo else replace(address, repo=listed)

    async def _other_method(self, call: Call, address: urls.Address) -> web.StreamResponse:
        method = call.request.method
        if method == "POST" and isinstance(address, ApiAddress) and address.verb == "paths-info":
            return await api.repository(call, address)
        if method == "POST" and address == OtherAddress(("v1", "telemetry")):
            return errors.plain(404, "NotFound", "no telemetry is taken here")
        if method in _WRITES:
            raise ReadOnly
        return errors.not_allowed("GET, HEAD")

    async def _own(self, call: Call, path: str) -> web.StreamResponse:
        if call.request.method not in ("GET", "HEAD"):
            return errors.not_allowed("GET, HEAD")
        match path:
            case "/":
                host = call.request.headers.get("Host", "")
                base = f"{lfs.scheme(call.request)}://{host}"
                return web.Response(text=_WELCOME.format(base=base))
            case "/metrics":
                return await health.prometheus(self._site)
            case "/-/healthy":
                return health.healthy()
            case "/-/ready":
                return health.ready(self._site)
            case "/-/status":
                return await health.status(call)
            case "/-/lock":
                return blobs.lock(call)
        text = "/".join(urls.segments_of(path)[1:])
        if text.startswith("sums/"):
            return await blobs.sums(call, text.removeprefix("sums/"))
        if text.startswith("files/"):
            return await blobs.files(call, text.removeprefix("files/"))
        if text.startswith("blobs/"):
            return await blobs.blob(call, text.removeprefix("blobs/"))
        return errors.plain(404, "NotFound", "no such page here")

    def _rest(self, call: Call, address: OtherAddress) -> web.StreamResponse:
        """What clients ask besides repositories, and everything odd."""
        match address.segments:
            case ("api", "agent-harnesses"):
                # huggingface_hub ≥ 1.20 asks once per process until it gets a 200.
                return call.json(b'{"standardEnvVars":[],"harnesses":{}}')
            case ("api", "whoami-v2"):
                return errors.plain(401, "Unauthorized", "no login is needed here")
        return errors.plain(404, "NotFound", "this mirror has no such page")

    def _failed(self, call: Call) -> web.Response:
        """For what nobody foresaw: the log has all of it, the client where to find it."""
        request = call.request
        log.exception("%s %s %s %a: 500", call.id, request.remote, request.method,
            request.raw_path[:500])  # fmt: skip
        message = f"internal error; see the mirror's log, request {call.id}"
        response = call.retell(errors.plain(500, "InternalError", message))
        response.force_close()  # nobody knows how far the request was read
        return response

    def _log(self, call: Call, status: int, error: MirrorError) -> None:
        request = call.request
        level = logging.INFO if isinstance(error, Refused) else logging.WARNING
        log.log(
            level,
            "%s %s %s %a: %d %s",
            call.id,
            request.remote,
            request.method,
            request.raw_path[:500],
            status,
            error,
        )


def _origin_form(target: str, host: str) -> str | None:
    """A target without the scheme and host of an absolute one; None if it is not on this host.

    RFC 9112 §3.2.2: a server accepts the absolute form; who takes us for a proxy sends it.
    """
    if target.startswith("/"):
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None or match[1].lower() != host.lower():
        return None
    return match[2] if match[2].startswith("/") else f"/{match[2]}"
