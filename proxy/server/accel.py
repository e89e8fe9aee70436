"""Handing a blob that we hold to the nginx in front, which sends the bytes (X-Accel-Redirect).

    request    X-Hubpin-Accel: /-/accel/             set by nginx; has to be our `accel`
    answer     X-Accel-Redirect: /-/accel/ab/abcd…   an internal location of nginx, with our head

The answer has the status 421 and no body. nginx looks at neither when it follows X-Accel-Redirect
(ngx_http_upstream_process_headers), so its client gets a 200 or a 206; who wrote the request's
header himself gets an error, and never an empty file that looks whole. What the request's header
says is compared and not used (CVE-2025-61780: Rack::Sendfile made a path of one).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from aiohttp import web

from proxy.pins.lock import Entry
from proxy.server.site import Call
from proxy.telemetry import metrics

HEADER = "X-Hubpin-Accel"
# What deploy/nginx.conf passes on by name; an answer with another header is not handed over.
PASSED_ON = frozenset(
    {"Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Docker-Content-Digest"}
    | {"ETag", "X-Content-Type-Options", "X-HF-Warning", "X-Linked-ETag", "X-Linked-Size"}
    | {"X-Repo-Commit", "X-Request-Id"}
)
# These it copies from any answer, also when it then cannot open the file and asks us again, and the
# client would get them twice. So they go under another name, by which it passes them on.
RENAMED = {
    name: f"X-Handed-{name}" for name in ("Accept-Ranges", "Cache-Control", "Content-Disposition")
}
_KNOWN = PASSED_ON | RENAMED.keys() | {"Content-Range", "Content-Type", "Server"}
# nginx would judge these by the file's time and its own entity tag.
_CONDITIONS = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range")
# One range that both of us read alike; numbers that no arithmetic of nginx overflows with.
_RANGE = re.compile(r"bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})", re.ASCII)
_MISDIRECTED = 421  # RFC 9110 §15.5.20
_MESSAGE = "this answer is for the nginx in front of the mirror, and did not come through it"


def takes(call: Call, status: int, headers: Mapping[str, str]) -> bool:
    """Whether nginx asks for us, and will send what we would send under this head."""
    location = call.site.mirror.config.accel
    asked = call.request.headers
    if not location or asked.getall(HEADER, []) != [location] or call.request.method != "GET":
        return False
    if not (headers.keys() | call.headers.keys()) <= _KNOWN:
        return False
    if any(name in asked for name in _CONDITIONS):
        return False
    ranges = asked.getall("Range", [])
    if status == 200:  # a range that we chose to ignore, nginx would not
        return not ranges
    return len(ranges) == 1 and _RANGE.fullmatch(ranges[0]) is not None


def hand_over(
    call: Call, entry: Entry, span: tuple[int, int], status: int, headers: Mapping[str, str]
) -> web.Response:
    """What has nginx send the span of the entry, under that head. `takes` said that it will."""
    # To a 200 nginx itself adds the first, to a 206 the second.
    made = "Accept-Ranges" if status == 200 else "Content-Range"
    start, stop = span
    metrics.HANDED_BYTES.inc(stop - start)
    call.handed_over(entry, span, status)
    hexdigits = entry.digest.hex
    return web.Response(
        status=_MISDIRECTED,
        headers={
            **{RENAMED.get(name, name): text for name, text in headers.items() if name != made},
            "X-Accel-Redirect": f"{call.site.mirror.config.accel}{hexdigits[:2]}/{hexdigits}",
            "X-Error-Code": "HandedOver",
            "X-Error-Message": _MESSAGE,
        },
    )
