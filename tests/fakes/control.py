"""What a test can tell a fake Hub and ask it, alike for one in this process and one in another."""

from __future__ import annotations

import asyncio
import base64
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase

import msgspec

from proxy.hub.wire import Json
from tests.fakes.content import Blob, Content, Literal
from tests.fakes.faults import ACTIONS, Fault, with_options
from tests.fakes.http1 import Seen
from tests.fakes.rows import FAULTS
from tests.fakes.world import File


@dataclass(slots=True)
class Addresses:
    """Where a fake Hub listens."""

    hub: str  # http://127.0.0.1:1234
    cdns: list[str]
    mirror: str = ""  # the port that behaves like hf-mirror.com
    control: str = ""  # only of a Hub in a process of its own
    ca_file: str = ""  # of the certificate authority that a TLS client has to trust
    extra: Json = field(default_factory=dict)


class HubControl(ABC):
    """A fake Hub, as a test holds it. All methods are thread-safe, and none blocks but `wait`."""

    addresses: Addresses

    @abstractmethod
    def call(self, verb: str, arguments: Json) -> object:
        """Run a verb of `book.py` or `hub_server.py`; JSON in, JSON out."""

    @property
    def url(self) -> str:
        return self.addresses.hub

    @property
    def cdn_url(self) -> str:
        return self.addresses.cdns[0]

    @property
    def mirror_url(self) -> str:
        return self.addresses.mirror

    # --- what happened ---

    def requests(
        self, *, host: str = "", method: str = "", route: str = "", path: str = "*", repo: str = "*"
    ) -> list[Seen]:
        """Every request since the last `reset`, of those that match, in order of arrival."""
        return [
            seen
            for seen in msgspec.convert(self.call("requests", {}), list[Seen])
            if host in ("", seen.host)
            and method in ("", seen.method)
            and route in ("", seen.route)
            and fnmatchcase(seen.path, path)
            and fnmatchcase(seen.repo, repo)
        ]

    def cdn_gets(self, path: str = "*") -> int:
        """How many GETs of this file (a glob) reached the CDN."""
        return len(self.requests(host="cdn", method="GET", path=path))

    @property
    def bytes_sent(self) -> int:
        """Bytes of bodies, of the CDN and of everything else."""
        return sum(seen.sent for seen in self.requests())

    @property
    def cdn_bytes(self) -> int:
        return sum(seen.sent for seen in self.requests(host="cdn"))

    def reset(self) -> None:
        """Forget every request so far."""
        self.call("reset", {})

    def wait(
        self, count: int = 1, *, sent: int = 0, timeout_s: float = 5, finished: bool = False,
        host: str = "", method: str = "", route: str = "", path: str = "*",
    ) -> list[Seen]:  # fmt: skip
        """Block until `count` matching requests came, each with `sent` bytes of body sent.

        Raises: TimeoutError.
        """
        match = {"host": host, "method": method, "route": route, "path": path}
        return msgspec.convert(
            self.call(
                "wait",
                {
                    "count": count,
                    "sent": sent,
                    "timeout_s": timeout_s,
                    "finished": finished,
                    "match": match,
                },
            ),
            list[Seen],
        )

    async def until(
        self, count: int = 1, *, sent: int = 0, timeout_s: float = 5, finished: bool = False,
        host: str = "", method: str = "", route: str = "", path: str = "*",
    ) -> list[Seen]:  # fmt: skip
        """`wait`, and the event loop goes on."""
        return await asyncio.to_thread(
            lambda: self.wait(
                count, sent=sent, timeout_s=timeout_s, finished=finished,
                host=host, method=method, route=route, path=path,
            )
        )  # fmt: skip

    # --- faults ---

    def fault(self, row: str | Fault, **options: object) -> None:
        """Switch on a row of the fault matrix (`"U08"`), or a fault of one's own.

        Options that are fields of `Fault` (path, host, nth, times, …) replace the row's; the rest
        go to its action, or to what the row does to the world (repo, ref, …).
        """
        if isinstance(row, Fault):
            self.add_faults(with_options(row, options))
        else:
            FAULTS[row](self, dict(options))

    def add_faults(self, *faults: Fault) -> None:
        for fault in faults:
            if fault.action not in ACTIONS:
                raise KeyError(f"no action {fault.action!r}; there are {', '.join(ACTIONS)}")
        self.call("faults", {"faults": [asdict(fault) for fault in faults]})

    def heal(self) -> None:
        """No fault from now on, and every port answers; what was done to the world stays."""
        self.call("heal", {})

    def hold(self, path: str = "*", *, at: int = 0, times: int | None = None) -> None:
        """Bodies of the CDN stop after `at` bytes, until `release`."""
        self.add_faults(Fault("hold", {"at": at}, host="cdn", path=path, times=times))

    def release(self) -> None:
        """What was held goes on, and nothing is held any more."""
        self.call("release", {})

    def refuse(self, *, blackhole: bool = False) -> None:
        """Every port refuses (or with `blackhole`, drops) connections; open ones are reset."""
        self.call("refuse", {"blackhole": blackhole})

    def listen(self) -> None:
        """Every port answers again, under its old number."""
        self.call("listen", {})

    def set(self, **settings: object) -> None:
        """Change fields of `Settings`; a new `tls` has the hub's port listen anew."""
        self.addresses = msgspec.convert(self.call("set", {"settings": settings}), Addresses)

    # --- the world ---

    def commit(
        self, repo: str, files: Mapping[str, File | None], *,
        branch: str = "main", parent: str = "", title: str = "",
    ) -> str:  # fmt: skip
        """A new commit that adds, replaces or (None) removes files; its id."""
        packed = {path: pack(file) for path, file in files.items()}
        arguments: Json = {
            "repo": repo, "files": packed, "branch": branch, "parent": parent, "title": title,
        }  # fmt: skip
        return str(self.call("commit", arguments))

    def move(self, repo: str, ref: str, to: str) -> str:
        """Point a branch, a tag or `refs/pr/N` at a revision; the commit that it is on now."""
        return str(self.call("move", {"repo": repo, "ref": ref, "to": to}))

    def tag(self, repo: str, name: str, at: str = "main") -> str:
        return str(self.call("tag", {"repo": repo, "name": name, "at": at}))

    def sha(self, repo: str, revision: str = "main") -> str:
        """The commit that a revision means there, now."""
        return str(self.call("sha", {"repo": repo, "revision": revision}))

    def delete(self, repo: str) -> None:
        self.call("delete", {"repo": repo})

    def rename(self, old: str, new: str) -> None:
        self.call("rename", {"old": old, "new": new})

    def restrict(
        self, repo: str, *, private: bool = False, gated: str = "", granted: bool = True
    ) -> None:
        """Make a repository private or gated (or, with neither, public again).

        `granted` is whether the token opens it if it is gated.
        """
        self.call(
            "restrict", {"repo": repo, "private": private, "gated": gated, "granted": granted}
        )


def pack(file: File | None) -> Json | None:
    if file is None:
        return None
    content: Blob = file.content
    match content:
        case Content(seed=seed, size=size):
            return {"lfs": file.lfs, "seed": seed, "size": size}
        case Literal(content=literal):
            return {"lfs": file.lfs, "base64": base64.b64encode(literal).decode()}
    raise TypeError(f"{type(content).__name__} cannot travel to another process")


def unpack(raw: Json | None) -> File | None:
    if raw is None:
        return None
    if "base64" in raw:
        return File(Literal(base64.b64decode(str(raw["base64"]))), bool(raw["lfs"]))
    seed, size = raw["seed"], raw["size"]
    if not isinstance(seed, str | int) or not isinstance(size, int):
        raise TypeError(f"no content: {raw!r}")
    return File(Content(seed, size), bool(raw["lfs"]))
