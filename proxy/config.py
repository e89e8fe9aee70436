"""The operator's hubpin.yaml → frozen dataclasses; the only reader of the environment.

Every key may be left out. Relative paths are relative to the file (to the working directory, if
there is no file). `HUBPIN_<KEY>` in the environment replaces a top-level key. Its value is the text
as it is; only HUBPIN_UPSTREAMS and HUBPIN_TIMEOUTS are read as YAML, and upstreams may also be
written with commas: `HUBPIN_UPSTREAMS="https://a, https://b"`. HUBPIN_TOKEN is the token of the
first upstream that is asked over HTTP, unless that one has a token_file.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import stat
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from yarl import URL

from proxy import yamlfile
from proxy.errors import ConfigError
from proxy.yamlfile import Fields, Node

log = logging.getLogger(__name__)

DEFAULT_FILE = Path("hubpin.yaml")
HUB = "https://huggingface.co"
_PREFIX = "HUBPIN_"
# Variables of ours that are no keys of the file.
_OWN_VARIABLES = frozenset({"HUBPIN_CONFIG", "HUBPIN_TOKEN"})
_STRUCTURED = frozenset({"upstreams", "timeouts"})  # keys that are no plain text
_MOST_WORKERS = 64
_SCHEMES = ("https", "http", "file")
_REDIRECT_HOST = re.compile(r"(?:(?:\*\.)?[A-Za-z0-9.\-]+|\[[0-9a-fA-F:]+\])(?::\d{1,5})?")
_LISTEN = re.compile(r"(?:([\w.\-]+)|\[([0-9A-Fa-f:.]+(?:%[\w.\-]+)?)\]):([0-9]{1,5})")
_LEAST_AUDIT = 64 << 10  # with less, each batch would be a file, and soon push the others out
_LEAST_PERIOD_S = 1.0  # of what is done again and again; with less, nothing else would be done
_LOCATION = re.compile(r"/(?:[A-Za-z0-9_\-]{1,100}/){1,10}", re.ASCII)
# Where the two public hubs send their callers, measured; nobody has to find out alone.
_KNOWN_REDIRECTS = {
    "huggingface.co": ("*.huggingface.co", "*.hf.co"),
    "hf-mirror.com": ("huggingface.co", "*.huggingface.co", "*.hf.co", "*.hf-mirror.com"),
}


class Secret:
    """A token: it can be used, and never printed by accident."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret(***)" if self._value else "Secret('')"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the server listens. An IPv6 host is written `"[::1]:8090"` in the file."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def local_url(self) -> str:
        """How this machine reaches it."""
        wild = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104  # a lookup
        return f"http://{Listen(wild, self.port)}"


@dataclass(frozen=True, slots=True)
class Timeouts:
    connect: float = 5.0  # seconds until a connection stands
    read: float = 30.0  # seconds without a byte from an upstream


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """One source of missing bytes."""

    url: URL  # https://, http:// or file:///
    token: Secret = field(default_factory=lambda: Secret(""))  # from token_file or HUBPIN_TOKEN
    redirect_hosts: tuple[str, ...] = ()  # where it may redirect to: host, *.host, host:port
    connections: int = 4  # parallel ranges for one large file
    authoritative: bool = True  # whether it has a say in what a revision means


@dataclass(frozen=True, slots=True)
class Config:
    """What the operator decided. Sizes are bytes, times are seconds."""

    file: Path | None = None  # where this was read from
    listen: Listen = Listen("0.0.0.0", 8090)  # noqa: S104  # a mirror for a LAN listens to the LAN
    data: Path = Path("hubpin-data")  # blobs, downloads in flight, logs
    allowlist: Path = Path("allowlist.yaml")  # the lock lies beside it
    contact: str = ""  # whom to ask; shown in refusals
    upstreams: tuple[UpstreamConfig, ...] = (
        UpstreamConfig(URL(HUB), redirect_hosts=_KNOWN_REDIRECTS["huggingface.co"]),
    )
    offline: bool = False  # never open a connection to an upstream
    auto_lock: bool = True  # lock pairs that appear in the allowlist while the server runs
    keep_free: int = 10 << 30  # bytes of disk that are never used
    timeouts: Timeouts = Timeouts()
    max_size: int = 0  # bytes of blobs; what was served longest ago goes first; 0: no limit
    scrub: float = 30 * 86400.0  # every blob is hashed again once in this time; 0: never
    fetcher: bool = True  # download in a process of its own, at low priority; false: in the server
    workers: int = 1  # processes that answer; more than one share the port (SO_REUSEPORT)
    max_connections: int = 4096  # from clients, in all
    max_connections_per_address: int = 1024  # raise it behind a reverse proxy
    accel: str = (
        ""  # nginx's internal location of our blobs, "/-/accel/"; "": we send them ourselves
    )
    cors: bool = False  # web pages of any origin may read what is served here
    drift_check: float = 86400.0  # how often a server asks what moved upstream; 0: never
    audit: bool = True  # write down who took what, in <data>/audit.jsonl
    audit_size: int = 64 << 20  # bytes of that file, then another one is begun
    audit_keep: int = 100  # full files of it that are kept; 0: all
    audit_sync: bool = True  # fsync it after each batch
    audit_addresses: str = "plain"  # or "pseudonym": a keyed hash instead of the address
    log: str = "text"  # or "json": one object a line

    @property
    def lock(self) -> Path:
        return self.allowlist.with_suffix(".lock")


def load(file: Path | None = None) -> Config:
    """The configuration in `file`, else in HUBPIN_CONFIG, else in ./hubpin.yaml, else the defaults.

    Raises: ConfigError.
    """
    if file is None and os.environ.get("HUBPIN_CONFIG"):
        file = Path(os.environ["HUBPIN_CONFIG"])
    if file is None and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    root = Node(1, fields={}) if file is None else yamlfile.read(file)
    if root.fields is not None:
        root.fields |= _overrides()
    return _config(root, file)


def _overrides() -> dict[str, Node]:
    nodes = {}
    for name, text in os.environ.items():
        if not name.startswith(_PREFIX) or name in _OWN_VARIABLES:
            continue
        key = name.removeprefix(_PREFIX).lower()
        if key not in Config.__dataclass_fields__ or key == "file":
            log.warning("the environment variable %s names no key of hubpin.yaml", name)
            continue
        node = Node(1, text=text.strip())
        if key in _STRUCTURED and node.text:
            node = yamlfile.parse(text, f"${name}")
        if key == "upstreams" and node.text is not None:
            node = Node(
                1, items=[Node(1, text=one) for one in re.split(r"[,\s]+", node.text) if one]
            )
        node.origin = f"${name}"
        nodes[key] = node
    return nodes


def _config(root: Node, file: Path | None) -> Config:
    where = file or "the environment"
    base = (file.parent if file else Path()).absolute()
    default = Config()
    fields = Fields(root, where, "hubpin.yaml")
    upstreams = _upstreams(fields, where, base, default)
    config = Config(
        file=file.absolute() if file else None,
        listen=_listen(fields, str(default.listen)),
        data=_path(fields, "data", base, str(default.data)),
        allowlist=_file(fields, "allowlist", base, str(default.allowlist)),
        contact=fields.shown("contact", default.contact),
        upstreams=upstreams,
        offline=fields.flag("offline", default=default.offline),
        auto_lock=fields.choice("auto_lock", "new", ("new", "off")) == "new",
        keep_free=fields.size("keep_free", default.keep_free),
        timeouts=_timeouts(fields, where),
        max_size=fields.size("max_size", default.max_size),
        scrub=fields.period("scrub", default.scrub, least=_LEAST_PERIOD_S),
        fetcher=fields.flag("fetcher", default=default.fetcher),
        workers=_workers(fields, default.workers),
        max_connections=fields.number("max_connections", default.max_connections, least=1),
        max_connections_per_address=fields.number(
            "max_connections_per_address", default.max_connections_per_address, least=1
        ),
        accel=_location(fields, "accel"),
        cors=fields.flag("cors", default=default.cors),
        drift_check=fields.period("drift_check", default.drift_check, least=_LEAST_PERIOD_S),
        audit=fields.flag("audit", default=default.audit),
        audit_size=fields.size("audit_size", default.audit_size, least=_LEAST_AUDIT),
        audit_keep=fields.number("audit_keep", default.audit_keep),
        audit_sync=fields.flag("audit_sync", default=default.audit_sync),
        audit_addresses=fields.choice(
            "audit_addresses", default.audit_addresses, ("plain", "pseudonym")
        ),
        log=fields.choice("log", default.log, ("text", "json")),
    )
    fields.done()
    if config.lock == config.allowlist:
        raise fields.error("allowlist", "the lock beside it would have the same name")
    return config


def _path(fields: Fields, key: str, base: Path, default: str) -> Path:
    text = fields.given(key, default)
    if not text or "\0" in text:
        raise fields.error(key, "must be a path")
    try:
        return base / Path(text).expanduser()
    except RuntimeError as e:  # ~nobody
        raise fields.error(key, f"{text!a}: {e}") from e


def _file(fields: Fields, key: str, base: Path, default: str) -> Path:
    path = _path(fields, key, base, default)
    try:
        folder = path.is_dir()
    except OSError:  # who may not look is told when it is read
        folder = False
    if folder or path.name in ("", ".."):
        raise fields.error(key, f"{path} is a folder; name a file")
    return path


def _listen(fields: Fields, default: str) -> Listen:
    text = fields.text("listen", default)
    # An IPv6 address without brackets may itself end in what looks like a port.
    match = _LISTEN.fullmatch(text)
    port = match[3] if match is not None else ""
    if match is None or int(port) > 65535 or not _is_ipv6(match[2] or "::"):
        raise fields.error(
            "listen", f"must be host:port, for example 0.0.0.0:8090 or [::]:8090, not {text!r}"
        )
    return Listen(match[1] or match[2], int(port))


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _workers(fields: Fields, default: int) -> int:
    workers = fields.number("workers", default, least=1)
    if workers > _MOST_WORKERS:
        raise fields.error("workers", f"must be at most {_MOST_WORKERS}, not {workers}")
    if workers > 1 and sys.platform != "linux":
        raise fields.error("workers", "more than one needs Linux (SO_REUSEPORT, memfd_create)")
    return workers


def _location(fields: Fields, key: str) -> str:
    text = fields.text(key, "off")
    if text == "off":
        return ""
    if not _LOCATION.fullmatch(text):
        raise fields.error(
            key, f"must be off, or a location like /-/accel/ that ends with a slash, not {text!a}"
        )
    return text


def _timeouts(fields: Fields, where: Path | str) -> Timeouts:
    node = fields.node("timeouts")
    if node is None:
        return Timeouts()
    inner = Fields(node, node.origin or where, "timeouts")
    default = Timeouts()
    timeouts = Timeouts(
        inner.duration("connect", default.connect), inner.duration("read", default.read)
    )
    inner.done()
    if timeouts.connect <= 0 or timeouts.read <= 0:
        raise fields.error("timeouts", "must be longer than nothing")
    return timeouts


def _upstreams(
    fields: Fields, where: Path | str, base: Path, default: Config
) -> tuple[UpstreamConfig, ...]:
    node = fields.node("upstreams")
    if node is None:
        found = default.upstreams
    elif node.items is None:
        raise fields.error("upstreams", f"must be a list, not {node.kind}")
    else:
        found = tuple(_upstream(item, node.origin or where, base) for item in node.items)
    text = os.environ.get("HUBPIN_TOKEN", "").strip()
    first = next((one for one in found if one.url.scheme in ("https", "http")), None)
    if not text or first is None or first.token:
        return found
    if not _is_token(text):
        raise ConfigError("$HUBPIN_TOKEN", None, "does not hold one token")
    given = replace(first, token=Secret(text))
    if _is_in_clear(given):
        raise ConfigError("$HUBPIN_TOKEN", None, _in_clear(given))
    return tuple(given if one is first else one for one in found)


def _upstream(node: Node, where: Path | str, base: Path) -> UpstreamConfig:
    if node.text is not None:
        url = _url(node.text, node.line, where)
        return UpstreamConfig(url, redirect_hosts=_KNOWN_REDIRECTS.get(url.host or "", ()))
    fields = Fields(node, where, "an upstream")
    text = fields.text("url", "")
    if not text:
        raise ConfigError(where, node.line, "the upstream has no url")
    url = _url(text, fields.line, where)
    hosts = fields.texts("redirect_hosts")
    for host in hosts or ():
        if not _REDIRECT_HOST.fullmatch(host):
            raise fields.error("redirect_hosts", f"{host!r} is not host, *.host or host:port")
    token_file = fields.text("token_file", "")
    upstream = UpstreamConfig(
        url=url,
        token=_token(_path(fields, "token_file", base, ""), fields) if token_file else Secret(""),
        redirect_hosts=_KNOWN_REDIRECTS.get(url.host or "", ()) if hosts is None else hosts,
        connections=fields.number("connections", 4, least=1),
        authoritative=fields.flag("authoritative", default=True),
    )
    fields.done()
    if _is_in_clear(upstream):
        raise fields.error("token_file", _in_clear(upstream))
    return upstream


def _is_in_clear(upstream: UpstreamConfig) -> bool:
    return (
        bool(upstream.token)
        and upstream.url.scheme == "http"
        and not _is_loopback(upstream.url.host or "")
    )


def _in_clear(upstream: UpstreamConfig) -> str:
    return f"a token would travel in clear text to {upstream.url.host}; use https"


def _url(text: str, line: int, where: Path | str) -> URL:
    try:
        url = URL(text)
    except ValueError as e:
        raise ConfigError(where, line, f"{text!r} is not a URL: {e}") from e
    if url.scheme not in _SCHEMES:
        raise ConfigError(
            where, line, f"{text!r}: an upstream's URL starts with {', '.join(_SCHEMES)}"
        )
    if url.user or url.password:
        raise ConfigError(where, line, "no user or password in an upstream's URL; use token_file")
    if url.scheme in ("http", "https") and not url.host:
        raise ConfigError(where, line, f"{text!r} names no host")
    if url.scheme == "file" and (url.host or not url.path.startswith("/")):
        raise ConfigError(where, line, f"{text!r}: write file:// and an absolute path: file:///mnt")
    return url


def _token(file: Path, fields: Fields) -> Secret:
    try:
        mode = file.stat().st_mode
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as e:
        raise fields.error("token_file", f"{file} cannot be read: {e}") from e
    if mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP:
        raise fields.error(
            "token_file", f"{file} may be read by everybody on this machine; run: chmod 600 {file}"
        )
    if not _is_token(text):
        raise fields.error("token_file", f"{file} does not hold one token")
    return Secret(text)


def _is_token(text: str) -> bool:
    return re.fullmatch("[!-~]+", text) is not None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
