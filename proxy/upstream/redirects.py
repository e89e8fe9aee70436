"""Where an upstream's redirects may lead, and to which addresses names may resolve.

A redirect is followed to the upstream's own `host:port` and to what `redirect_hosts` names:

    cdn.example          this host, any port
    cdn.example:8443     this host, this port
    *.example            every host below it, the scheme's default port
    *.example:8443       every host below it, this port

Never from https to http, never with a user in the URL, never to an address in place of a name
unless that very address is named, never to another repository.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from proxy.errors import InvalidName, UpstreamUnavailable
from proxy.hub import urls
from proxy.hub.names import RepoId

# RFC 6052 §2.1: the last 32 bits of such an address are an IPv4 address.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Renamed(UpstreamUnavailable):
    """A redirect leads to another repository; only the upstream's API may say that it is right."""

    def __init__(self, upstream: str, asked: RepoId, repo: RepoId) -> None:
        super().__init__(upstream, f"asked for {asked}, it sends us to another repository, {repo}")
        self.repo = repo


class RedirectPolicy:
    """Decides about every redirect of one upstream."""

    def __init__(self, name: str, base: URL, hosts: Sequence[str]) -> None:
        self._name = name
        self._base = base
        self._prefix = base.raw_path.rstrip("/")
        self._hosts = tuple(_Pattern(host) for host in hosts)

    def target(self, source: URL, location: str, repo: RepoId | None) -> URL:
        """Where the redirect leads; `repo` is what it may not leave (None: it may).

        Raises: UpstreamUnavailable, Renamed.
        """
        target = self._parse(source, location)
        if target.scheme not in ("http", "https"):
            raise self._refused(f"to a {target.scheme or 'broken'}: URL")
        if target.scheme == "http" and (source.scheme == "https" or self._base.scheme == "https"):
            raise self._refused(f"from https down to http ({_host_port(target)})")
        if target.raw_user is not None or target.raw_password is not None:
            raise self._refused(f"to {_host_port(target)} with a user in the URL")
        if not self._host_allowed(target):
            raise UpstreamUnavailable(
                self._name,
                f"it redirects to {_host_port(target)}, which is not allowed; if it may, "
                "name it in this upstream's redirect_hosts",
            )
        if repo is not None:
            self._check_repo(target, repo)
        return target

    def named_exactly(self, host: str, port: int) -> bool:
        """Whether the operator wrote this very host: then its address may be a private one."""
        host = host.lower()
        if host == (self._base.host or "").lower():
            return True
        return any(one.exact and one.admits(host, port, None) for one in self._hosts)

    def _parse(self, source: URL, location: str) -> URL:
        try:
            # Taken as it stands: a signed query must not be quoted anew.
            verbatim = location.isascii() and location.isprintable() and " " not in location
            target = source.join(URL(location, encoded=verbatim)).with_fragment(None)
            host = target.host or ""
            if target.scheme in ("http", "https") and not host.isascii():
                raise ValueError("the host is not ASCII")
            host.encode("idna")  # as looking it up does: no label is empty or too long
            target.port  # noqa: B018  # raises ValueError for a port that does not exist
        except ValueError as e:  # UnicodeError is one, too
            raise self._refused("to something that is not a URL") from e
        return target

    def _host_allowed(self, target: URL) -> bool:
        host, port = (target.host or "").lower(), target.port
        base = self._base
        if not host or port is None:
            return False
        if host == (base.host or "").lower() and (
            port == base.port or (base.is_default_port() and target.is_default_port())
        ):
            return True
        default = 443 if target.scheme == "https" else 80
        literal = _address(host) is not None
        return any(
            one.admits(host, port, default) for one in self._hosts if one.exact or not literal
        )

    def _check_repo(self, target: URL, repo: RepoId) -> None:
        path = target.raw_path
        if self._prefix and path.startswith(f"{self._prefix}/"):
            path = path[len(self._prefix) :]
        found = _repo_in(path, repo)
        if found is not None and found != repo:
            raise Renamed(self._name, repo, found)

    def _refused(self, where: str) -> UpstreamUnavailable:
        return UpstreamUnavailable(self._name, f"it redirects {where}, which is never followed")


class GuardedResolver(AbstractResolver):
    """Names resolve to public addresses only, except names that the operator wrote himself.

    Checked here because the connection is made to the very addresses that this returns: a name
    that resolves to something else a moment later (DNS rebinding) gains nothing.
    """

    def __init__(self, policy: RedirectPolicy, inner: AbstractResolver | None = None) -> None:
        self._policy = policy
        self._inner = inner or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if self._policy.named_exactly(host, port):
            return found
        public = [one for one in found if is_public(one["host"])]
        if not public:
            raise OSError(
                f"{host} resolves to private addresses only; "
                "name it without a wildcard in redirect_hosts if that is meant"
            )
        return public

    async def close(self) -> None:
        await self._inner.close()


class _Pattern:
    """One item of `redirect_hosts`."""

    def __init__(self, text: str) -> None:
        host, port = text.lower(), ""
        if "]:" in host or (host.count(":") == 1 and "]" not in host):
            host, _, port = host.rpartition(":")
        self.exact = not host.startswith("*.")
        self._host = host.removeprefix("*").strip("[]")
        self._port = int(port) if port else None

    def admits(self, host: str, port: int, default: int | None) -> bool:
        """`default` is the scheme's port, the only one that a bare wildcard admits."""
        if self.exact:
            return host == self._host and self._port in (None, port)
        return host.endswith(self._host) and port == (self._port or default)


def is_public(address: str) -> bool:
    """Whether an address is of the open internet, also where it wraps an IPv4 address."""
    ip = _address(address.partition("%")[0])
    if ip is None:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        else:
            ip = ip.ipv4_mapped or ip.sixtofour or ip
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _host_port(url: URL) -> str:
    return f"{url.host}:{url.port}"


def _repo_in(raw_path: str, asked: RepoId) -> RepoId | None:
    """The repository that a URL path of the Hub is about; None if it does not show."""
    try:
        address = urls.parse(raw_path)
    except InvalidName:
        return None
    if isinstance(address, urls.FileAddress | urls.ApiAddress):
        return address.repo
    if not isinstance(address, urls.OtherAddress):
        return None
    # /api/resolve-cache/{type}/{repo}/{commit}/{path}: the Hub's own cache of small files.
    segments = address.segments
    if segments[:2] != ("api", "resolve-cache"):
        return None
    own = (asked.type.value, *asked.name.split("/"))
    if segments[2 : 2 + len(own)] == own:
        return asked
    try:
        prefix = "" if segments[2] == "models" else f"{segments[2]}/"
        return RepoId(prefix + "/".join(segments[3:5]))
    except (InvalidName, IndexError):
        return None
