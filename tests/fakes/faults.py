"""A fault: which requests it meets, and what it does to their answers.

Faults are plain values that travel as JSON, because a fake Hub may run in another process.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache

import msgspec

from proxy.hub.wire import Json
from tests.fakes.content import Content, Literal, Longer, Twisted
from tests.fakes.http1 import EMPTY, Reply, Request, Seen
from tests.fakes.site import Site

LOGIN_PAGE = (
    b"<!DOCTYPE html><html><head><title>Guest network</title></head>"
    b"<body><form action='/login'>Please log in to use this network.</form></body></html>"
)


@dataclass(slots=True)
class Fault:
    """Something that goes wrong with the requests that match.

    `path` is a glob over the file's path in its repository, or over the URL's path where no file
    is asked for. Of the matching requests, the `nth` is the first to suffer, and `times` suffer;
    None is all that follow.
    """

    action: str  # a key of `ACTIONS`
    options: Json = field(default_factory=dict)
    host: str = ""  # hub, cdn or mirror; "" is any
    method: str = ""
    route: str = ""  # a glob: resolve, blob, tree, …; "" is any
    path: str = "*"
    resumed: bool = False  # only requests for a range that starts after 0
    nth: int = 1
    times: int | None = 1
    matched: int = 0  # counted by the server

    def meets(self, request: Request, seen: Seen) -> bool:
        """Whether it strikes this request; counts it if it matches."""
        fits = (
            self.host in ("", seen.host)
            and self.method in ("", request.method)
            and fnmatchcase(seen.route, self.route or "*")
            and fnmatchcase(seen.path or request.raw_path, self.path)
            and (not self.resumed or request.resumes)
        )
        if not fits:
            return False
        self.matched += 1
        return self.nth <= self.matched and (
            self.times is None or self.matched < self.nth + self.times
        )

    def strike(self, site: Site, request: Request, reply: Reply) -> None:
        ACTIONS[self.action](Strike(site, request, reply, self.options))


@dataclass(slots=True)
class Strike:
    """What an action works on."""

    site: Site
    request: Request
    reply: Reply
    options: Json

    def number(self, name: str, default: int) -> int:
        value = self.options.get(name, default)
        if not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}, not a whole number")
        return value

    def text(self, name: str, default: str) -> str:
        return str(self.options.get(name, default))

    def at(self) -> int:
        """The offset in the body that `at` (bytes) names, else the middle."""
        return self.number("at", self.reply.size // 2)


def with_options(fault: Fault, options: Json) -> Fault:
    """The same fault with other fields, and the rest as options of its action."""
    raw = asdict(fault)
    fields = {key: value for key, value in options.items() if key in raw}
    rest = {key: value for key, value in options.items() if key not in raw}
    held = raw["options"]
    return msgspec.convert({**raw, **fields, "options": {**held, **rest}}, Fault)


# --- other answers -------------------------------------------------------------------------------


def _status(strike: Strike) -> None:
    """`status`, with `code` as X-Error-Code and `retry_after` (seconds) if they are given."""
    status = strike.number("status", 503)
    headers = [("Content-Type", "application/json")]
    if "code" in strike.options:
        headers.append(("X-Error-Code", strike.text("code", "")))
        headers.append(("X-Error-Message", strike.text("message", "no")))
    if "retry_after" in strike.options:
        seconds = strike.text("retry_after", "")
        headers.append(("Retry-After", seconds))
        if status == 429:
            headers.append(("RateLimit", f'"resolvers";r=0;t={seconds}'))
            headers.append(("RateLimit-Policy", '"fixed window";"resolvers";q=5000;w=300'))
    strike.reply.replace(status, Literal(b'{"error":"a fault"}'), *headers)


def _login_page(strike: Strike) -> None:
    strike.reply.replace(200, Literal(LOGIN_PAGE), ("Content-Type", "text/html"))


def _empty(strike: Strike) -> None:
    strike.reply.replace(200, EMPTY, ("Content-Type", "application/octet-stream"))


def _redirect(strike: Strike) -> None:
    """To `to`; "" is the URL that was asked for."""
    to = strike.text("to", "") or strike.request.target
    strike.reply.replace(302, EMPTY, ("Location", to))


def _expire(strike: Strike) -> None:
    """The signature that this request carries opens nothing from now on."""
    issued = strike.site.issued.get(strike.request.query.get("Signature", ""))
    if issued is not None:
        issued.revoked = True
    body = Literal(
        b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    )
    strike.reply.replace(403, body, ("Content-Type", "application/xml"))


# --- other bytes ---------------------------------------------------------------------------------


def _corrupt(strike: Strike) -> None:
    """One bit; the headers are right."""
    if strike.reply.status in (200, 206):
        strike.reply.body = Twisted(strike.reply.body)


def _other_bytes(strike: Strike) -> None:
    """Every byte, in the right number; `etag` is claimed for them if it is given."""
    if strike.reply.status in (200, 206):
        strike.reply.body = Twisted(strike.reply.body, everywhere=True)
        if "etag" in strike.options:
            strike.reply.set("ETag", strike.text("etag", ""))


def _shorter(strike: Strike) -> None:
    """Half of the bytes, and a Content-Length (with `chunked`, an end) that says all is well."""
    reply = strike.reply
    reply.stop = reply.start + strike.at()
    reply.chunked = bool(strike.options.get("chunked"))


def _longer(strike: Strike) -> None:
    """`by` bytes more than the file has; Content-Length counts them unless `hidden`."""
    reply = strike.reply
    by = strike.number("by", 1000)
    if strike.options.get("hidden"):
        reply.length = reply.size
    reply.body = Longer(reply.body, reply.stop, by)
    reply.stop += by


def _gzip_bomb(strike: Strike) -> None:
    """`size` zero bytes, compressed a thousandfold."""
    bomb = gzip_zeros(strike.number("size", 300) << 20)
    strike.reply.replace(
        200,
        Literal(bomb),
        ("Content-Type", "application/octet-stream"),
        ("Content-Encoding", "gzip"),
    )


@lru_cache(maxsize=2)
def gzip_zeros(size: int) -> bytes:
    """A gzip file of `size` zero bytes, rounded down to MiB."""
    zeros = bytes(1 << 20)
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    count, crc = size >> 20, 0
    for _ in range(count):
        crc = zlib.crc32(zeros, crc)
    end = zlib.compressobj(9, wbits=-15).flush()
    head = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"
    tail = crc.to_bytes(4, "little") + ((count << 20) & 0xFFFFFFFF).to_bytes(4, "little")
    return head + block * count + end + tail


# --- other headers -------------------------------------------------------------------------------


def _headers(strike: Strike) -> None:
    """Each option is a header; "" removes it, and Content-Length goes with `Content-Length`."""
    for name, value in strike.options.items():
        strike.reply.set(name, str(value) or None)
        if name.lower() == "content-length":
            strike.reply.unsized = True


def _lying_headers(strike: Strike) -> None:
    """Each option replaces a header that is there."""
    for name, value in strike.options.items():
        if strike.reply.header(name):
            strike.reply.set(name, str(value))


def _many_headers(strike: Strike) -> None:
    for number in range(strike.number("count", 5000)):
        strike.reply.headers.append((f"X-Pad-{number}", "x" * 1000))


def _two_lengths(strike: Strike) -> None:
    strike.reply.headers.append(("Content-Length", str(strike.reply.size + 7)))


def _overstate(strike: Strike) -> None:
    """Content-Length is too large, and the connection ends where the bytes do."""
    strike.reply.length = strike.reply.size + strike.number("by", 1000)


def _ignore_range(strike: Strike) -> None:
    reply = strike.reply
    if reply.status == 206:
        reply.status, reply.start, reply.stop = 200, 0, reply.body.size
        reply.set("Content-Range", None)


def _wrong_range(strike: Strike) -> None:
    """A 206 that says, truthfully, that its bytes are from somewhere else."""
    reply = strike.reply
    if reply.status == 206:
        start = reply.start // 2
        size, total = reply.size, reply.body.size
        reply.start, reply.stop = start, start + size
        reply.set("Content-Range", f"bytes {start}-{start + size - 1}/{total}")


def _bytes_from_elsewhere(strike: Strike) -> None:
    """A 206 whose headers are right and whose bytes are from somewhere else."""
    reply = strike.reply
    if reply.status == 206:
        size = reply.size
        reply.start //= 2
        reply.stop = reply.start + size


def _chunked(strike: Strike) -> None:
    strike.reply.chunked = True


# --- other deliveries ----------------------------------------------------------------------------


def _cut(strike: Strike) -> None:
    """End the connection after `at` bytes of the body; -1 is before the headers; `reset` is RST."""
    strike.reply.cut_at = strike.at()
    strike.reply.cut_by_reset = bool(strike.options.get("reset"))


def _stall(strike: Strike) -> None:
    strike.reply.stall_at = strike.at()


def _hold(strike: Strike) -> None:
    strike.reply.hold_at = strike.at()


def _drip(strike: Strike) -> None:
    strike.reply.rate = float(strike.number("rate", 5000))


def _silence(strike: Strike) -> None:
    strike.reply.silent = True


def _garbage(strike: Strike) -> None:
    strike.reply.raw = Content("garbage", 4096).read(0, 4096)


# --- other trees ---------------------------------------------------------------------------------


def _tree(strike: Strike) -> None:
    """`variant`: truncated, deep, dotdot, self-link, endless, foreign-link, not-a-list."""
    request, reply = strike.request, strike.reply
    body = reply.body.read(0, reply.body.size)
    origin = f"http://{request.headers.get('host', '')}"
    link = ""
    match strike.text("variant", "truncated"):
        case "truncated":
            body = body[: len(body) // 2]
        case "deep":
            body = b"[" * 100_000 + b"]" * 100_000
        case "dotdot":
            row = b'{"type":"file","path":"../../etc/passwd","size":1,"oid":"%s"}' % (b"0" * 40)
            body = b"[" + row + b"]"
        case "self-link":
            link = f"{origin}{request.target}"
        case "endless":
            at = int(request.query.get("cursor") or "0")
            link = f"{origin}{request.raw_path}?recursive=true&cursor=0&page={at}"
            body = b"[]"
        case "foreign-link":
            link = strike.text("to", "http://127.0.0.9:9/api/models/evil/tree/main")
        case "not-a-list":
            body = b'{"error":null}'
        case other:
            raise ValueError(f"no variant {other!r}")
    reply.body, reply.start, reply.stop = Literal(body), 0, len(body)
    if link:
        reply.set("Link", f'<{link}>; rel="next"')


ACTIONS: dict[str, Callable[[Strike], None]] = {
    "bytes-from-elsewhere": _bytes_from_elsewhere,
    "chunked": _chunked,
    "corrupt": _corrupt,
    "cut": _cut,
    "drip": _drip,
    "empty": _empty,
    "expire": _expire,
    "garbage": _garbage,
    "gzip-bomb": _gzip_bomb,
    "headers": _headers,
    "hold": _hold,
    "ignore-range": _ignore_range,
    "login-page": _login_page,
    "longer": _longer,
    "lying-headers": _lying_headers,
    "many-headers": _many_headers,
    "other-bytes": _other_bytes,
    "overstate": _overstate,
    "redirect": _redirect,
    "shorter": _shorter,
    "silence": _silence,
    "stall": _stall,
    "status": _status,
    "tree": _tree,
    "two-lengths": _two_lengths,
    "wrong-range": _wrong_range,
}
