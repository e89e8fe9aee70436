"""The fault matrix: the rows that are something an upstream does, by their numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.hub.wire import Json
from tests.fakes.content import Content
from tests.fakes.faults import Fault, with_options
from tests.fakes.world import lfs

if TYPE_CHECKING:  # it offers these rows
    from tests.fakes.control import HubControl

Row = Callable[["HubControl", Json], None]


def _cdn(action: str, *, times: int | None = 1, **options: object) -> Fault:
    return Fault(action, dict(options), host="cdn", method="GET", times=times)


def _hub(action: str, *, route: str = "", times: int | None = 1, **options: object) -> Fault:
    return Fault(action, dict(options), host="hub", route=route, times=times)


def _resumed(action: str, *, times: int | None = None, **options: object) -> Fault:
    return Fault(action, dict(options), host="cdn", method="GET", resumed=True, times=times)


def _row(*faults: Fault) -> Row:
    """Options go to the last fault, but `path`, `host`, `route` and `at` to all of them."""

    def switch_on(hub: HubControl, options: Json) -> None:
        shared: Json = {
            key: options[key] for key in ("path", "host", "route", "at") if key in options
        }
        first = [with_options(fault, shared) for fault in faults[:-1]]
        hub.add_faults(*first, with_options(faults[-1], options))

    return switch_on


_CUT = _cdn("cut")


def _tag_moved(hub: HubControl, options: Json) -> None:
    """`ref` of `repo` moves to a commit with other bytes."""
    repo, ref = str(options.get("repo", "acme/tiny")), str(options.get("ref", "v1.0"))
    path = str(options.get("path", "model.safetensors"))
    moved = hub.commit(
        repo, {path: lfs(Content(f"moved {ref}", 50_000))}, branch="moved", parent=ref
    )
    hub.move(repo, ref, moved)


def _refuses(hub: HubControl, options: Json) -> None:
    hub.refuse(blackhole=bool(options.get("blackhole")))


def _bad_tls(hub: HubControl, options: Json) -> None:
    """`kind`: self-signed, expired or wrong-host."""
    hub.set(tls=options.get("kind", "self-signed"))


def _gated(hub: HubControl, options: Json) -> None:
    """`repo` is gated, and `granted` says whether our token opens it."""
    repo = str(options.get("repo", "acme/tiny"))
    hub.restrict(repo, gated="manual", granted=bool(options.get("granted", False)))


def _gone(hub: HubControl, options: Json) -> None:
    """`how` `repo` went: deleted, renamed or private."""
    repo = str(options.get("repo", "acme/tiny"))
    match options.get("how", "deleted"):
        case "deleted":
            hub.delete(repo)
        case "renamed":
            hub.rename(repo, str(options.get("to", f"{repo}-renamed")))
        case "private":
            hub.restrict(repo, private=True)
        case other:
            raise ValueError(f"a repository does not go by being {other!r}")


FAULTS: dict[str, Row] = {
    "U02": _row(_cdn("status", status=503)),
    "U03": _row(_cdn("status", status=503, times=None)),
    "U04": _row(_cdn("status", status=429, retry_after=1)),
    "U05": _row(_hub("status", status=429, retry_after=1)),
    "U06": _row(_hub("status", status=500)),
    "U07": _row(_cdn("cut", at=-1, reset=True)),
    "U08": _row(_cdn("cut", reset=True)),
    "U09": _row(_cdn("cut")),
    "U10": _row(_cdn("stall")),
    "U11": _row(_cdn("shorter", times=None)),
    "U12": _row(_cdn("shorter")),
    "U13": _row(_cdn("longer", times=None)),
    "U14": _row(_cdn("overstate", times=None)),
    "U15": _row(_cdn("corrupt")),
    "U16": _row(_cdn("corrupt", times=None)),
    "U17": _row(_cdn("other-bytes", times=None)),
    "U18": _row(Fault("other-bytes", {}, "hub", "GET", "resolve", times=None)),
    "U19": _row(_cdn("login-page", times=None)),
    "U20": _row(_hub("login-page", times=None)),
    "U21": _row(_CUT, _resumed("ignore-range")),
    "U22": _row(_CUT, _resumed("bytes-from-elsewhere", times=1)),
    "U23": _row(_CUT, _resumed("wrong-range")),
    "U24": _row(_CUT, _resumed("status", status=416)),
    "U25": _row(_CUT, _resumed("other-bytes", times=1, etag='"replaced"')),
    "U26": _row(_hub("redirect", route="resolve", times=None)),
    "U27": _row(_hub("redirect", route="resolve", times=None, to="http://127.0.0.9:9/secret")),
    "U28": _row(_hub("redirect", route="resolve", times=None, to="file:///etc/hostname")),
    "U29": _row(
        _hub("redirect", route="resolve", times=None, to="/solo/resolve/main/config.json")
    ),
    "U30": _row(_cdn("expire")),
    "U31": _row(_cdn("empty", times=None)),
    "U32": _row(_cdn("chunked", times=None)),
    "U33": _row(_cdn("gzip-bomb", times=None)),
    "U34": _row(_cdn("many-headers", times=None)),
    "U35": _row(_hub("lying-headers", times=None, **{"X-Repo-Commit": "0" * 40})),
    "U36": _tag_moved,
    "U37": _row(_hub("lying-headers", times=None, **{"X-Linked-Etag": f'"{"0" * 64}"'})),
    "U38": _row(_hub("tree", route="tree", times=None, variant="truncated")),
    "U39": _refuses,
    "U40": _row(_hub("silence", times=None)),
    "U41": _row(
        _hub(
            "status", times=None,
            status=404, code="RevisionNotFound", message="Invalid rev id",
        )
    ),
    "U44": _row(_cdn("garbage")),
    "U45": _row(_cdn("two-lengths")),
    "U46": _row(_cdn("corrupt", times=3)),
    "U50": _bad_tls,
    "U51": _gated,
    "U52": _gone,
    "U53": _row(
        Fault(
            "headers",
            {"Content-Length": "", "ETag": "", "X-Linked-Etag": "", "X-Linked-Size": ""},
            "hub", "HEAD", "resolve", times=None,
        )
    ),
    "U54": _row(_cdn("drip", times=None, rate=5000)),
}  # fmt: skip
