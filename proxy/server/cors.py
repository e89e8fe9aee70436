"""Web pages of other origins: what a browser has to be told before it lets them read our answers.

Off unless `cors: true`. What is served needs no login, so a page learns nothing that its visitor
could not read himself; but it may be on a network that the page's author cannot reach.
"""

from __future__ import annotations

import re

from aiohttp import web

_EXPOSED = (
    "ETag, X-Linked-ETag, X-Linked-Size, X-Repo-Commit, Content-Range, Content-Length, "
    "Accept-Ranges, X-Error-Code, X-Error-Message, X-HF-Warning, X-Request-Id, Retry-After, Link"
)
HEADERS = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": _EXPOSED}
_NAMES = re.compile(r"[A-Za-z0-9\-]+(?:[ \t]*,[ \t]*[A-Za-z0-9\-]+)*")
_A_DAY_S = 86400


def is_preflight(request: web.BaseRequest) -> bool:
    """Fetch standard, "CORS-preflight request"."""
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def preflight(request: web.BaseRequest) -> web.Response:
    """`Authorization` is among what is allowed: transformers.js sends a token if it has one, and
    a wildcard does not cover it."""
    asked = request.headers.get("Access-Control-Request-Headers", "")
    headers = {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
        "Access-Control-Max-Age": str(_A_DAY_S),
        "Vary": "Access-Control-Request-Headers",
    }
    if len(asked) <= 1000 and _NAMES.fullmatch(asked):
        headers["Access-Control-Allow-Headers"] = asked
    # A page on the internet asks a machine on a LAN: Private Network Access asks twice.
    if request.headers.get("Access-Control-Request-Private-Network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    return web.Response(status=204, headers=headers)
