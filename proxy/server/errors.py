"""Error → answer: the only such table.

Codes are the Hub's, because its client turns them into its own exceptions (huggingface_hub,
utils/_http.py, hf_raise_for_status). Messages go out three ways because each client shows another
one: `X-Error-Message` (Python), `X-HF-Warning` (printed by huggingface_hub ≥ 1.2 above its own
error) and the JSON body (JavaScript, curl).
"""

from __future__ import annotations

import json
import math
import re

from aiohttp import web

from proxy import errors

# First match wins, so subclasses come before their bases.
_ANSWERS: tuple[tuple[type[errors.MirrorError], int, str], ...] = (
    (errors.RevisionNotAllowed, 404, "RevisionNotFound"),
    (errors.RevisionNotPinned, 404, "RevisionNotFound"),
    (errors.EntryNotFound, 404, "EntryNotFound"),
    # Without X-Repo-Commit: clients do not remember that it is not there. Many look for another
    # format then, which is what is wanted.
    (errors.FormatDenied, 404, "EntryNotFound"),
    (errors.RepoNotAllowed, 404, "RepoNotFound"),
    (errors.ReadOnly, 403, "ReadOnly"),
    (errors.TooLarge, 403, "TooLarge"),
    (errors.InvalidName, 400, "BadRequest"),
    (errors.UpstreamForbidden, 403, "GatedRepo"),
    (errors.UpstreamMissing, 502, "UpstreamMissing"),
    (errors.UpstreamInvalid, 502, "UpstreamInvalid"),
    (errors.UpstreamError, 504, "UpstreamUnavailable"),
    (errors.PartDistrusted, 409, "PartDistrusted"),
    (errors.IntegrityError, 502, "IntegrityError"),
    (errors.StoreFull, 507, "StorageFull"),
    (errors.StoreError, 500, "StoreError"),
)
# Refusals that an admin can lift, so the reader is told whom to ask.
_ASKABLE = (
    errors.RepoNotAllowed, errors.RevisionNotAllowed, errors.RevisionNotPinned, errors.FormatDenied
)  # fmt: skip
_NAMELESS: dict[type[errors.MirrorError], str] = {
    errors.EntryNotFound: "the locked commit has no such file or folder",
    errors.InvalidName: "the request holds a name that is not valid",
}
_OLD_CLIENT = re.compile(r"\bhf_hub/0\.")
_NOT_HEADER = re.compile(r"[^\x20-\x7e]+")


def answer(error: errors.MirrorError, request: web.BaseRequest, contact: str) -> web.Response:
    """The answer that says what went wrong, in every way that some client shows."""
    message = str(error)
    whom = contact or "the admin of this mirror"
    if isinstance(error, _ASKABLE):
        message = f"{message}. Ask {whom}"
    elif isinstance(error, errors.StoreError) and not isinstance(error, errors.StoreFull):
        # Paths on our disk are nobody else's business.
        message = f"the mirror's own disk failed; its log says why. Tell {whom}"
    retry_after_s = _retry_after(error)
    if retry_after_s is not None:
        status, code = busy_status(request), "Busy"
    else:
        status, code = next(
            ((s, c) for kind, s, c in _ANSWERS if isinstance(error, kind)), (500, "InternalError")
        )
    response = plain(status, code, message)
    if isinstance(error, errors.EntryNotFound | errors.InvalidName):
        # Names that we could not check are shown in bodies only, where JSON escapes them.
        response.headers["X-Error-Message"] = _NAMELESS[type(error)]
    if isinstance(error, errors.EntryNotFound):
        # With the commit the client remembers the absence and never asks again.
        response.headers["X-Repo-Commit"] = error.commit
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(retry_after_s)
    if isinstance(error, _ASKABLE):
        topic = _topic(error)
        response.headers["X-HF-Warning"] = header_text(f"{topic}; [mirror] {message}")
    return response


def plain(status: int, code: str, message: str) -> web.Response:
    """An error that no MirrorError stands for."""
    return web.Response(
        status=status,
        body=json.dumps({"error": message}).encode(),
        content_type="application/json",
        headers={"X-Error-Code": code, "X-Error-Message": header_text(message)},
    )


def not_allowed(methods: str) -> web.Response:
    response = plain(405, "MethodNotAllowed", f"allowed here: {methods}")
    response.headers["Allow"] = methods
    return response


def busy_status(request: web.BaseRequest) -> int:
    """How to say "later": huggingface_hub 0.x retries a file on 503 and gives up on 429, 1.x and
    2.x do the reverse; everybody else knows 503."""
    agent = request.headers.get("User-Agent", "")
    return 503 if _OLD_CLIENT.search(agent) or "hf_hub/" not in agent else 429


def header_text(text: str) -> str:
    """One line of printable ASCII: UTF-8 in a header becomes noise in old clients."""
    return _NOT_HEADER.sub("?", text)[:1000]


def _retry_after(error: errors.MirrorError) -> int | None:
    """Seconds, if the same request will do later."""
    if isinstance(error, errors.Busy):
        return error.retry_after_s
    if isinstance(error, errors.UpstreamUnavailable) and error.retry_after_s is not None:
        return max(1, math.ceil(error.retry_after_s))
    return None


def _topic(
    error: (
        errors.RepoNotAllowed
        | errors.RevisionNotAllowed
        | errors.RevisionNotPinned
        | errors.FormatDenied
    ),
) -> str:
    """Clients print a warning once per topic and process, so each pair has its own."""
    if isinstance(error, errors.RepoNotAllowed):
        return f"hubpin {error.repo}"
    if isinstance(error, errors.FormatDenied):
        return f"hubpin {error.repo} {error.ending}"
    return f"hubpin {error.repo}@{error.revision}".replace(";", "")
