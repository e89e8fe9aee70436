"""What a fake Hub has seen, which faults wait for it, and how tests change its world."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from fnmatch import fnmatchcase

import msgspec

from proxy.hub.wire import Json
from tests.fakes.control import unpack
from tests.fakes.faults import Fault
from tests.fakes.http1 import Reply, Request, Seen
from tests.fakes.site import Site


class Book:
    """The part of a fake Hub that several threads use; every method takes its lock."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._seen: list[Seen] = []
        self._faults: list[Fault] = []
        # Guards the world and the lists above; told of every record that is made or changes.
        self.changed = threading.Condition(threading.RLock())

    def notify(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def answer(self, host: str, request: Request, connection: int) -> tuple[Reply, Seen]:
        """Record a request and decide its answer, faults included."""
        with self.changed:
            seen = Seen(
                len(self._seen), host, request.method, request.target, request.headers,
                route="", connection=connection,
            )  # fmt: skip
            self._seen.append(seen)
            reply = self._site.answer(host, request, seen)
            for fault in self._faults:
                if fault.meets(request, seen):
                    seen.faults.append(fault.action)
                    fault.strike(self._site, request, reply)
            seen.status = reply.status
            self.changed.notify_all()
        return reply, seen

    def forget_faults(self, action: str = "") -> None:
        """Those with this action, or all."""
        with self.changed:
            self._faults = [f for f in self._faults if action not in ("", f.action)]

    # --- verbs: JSON in, JSON out ---

    def requests(self) -> object:
        with self.changed:
            return msgspec.to_builtins(self._seen)

    def reset(self) -> None:
        with self.changed:
            self._seen.clear()

    def wait(
        self, count: int, sent: int, timeout_s: float, finished: bool, match: dict[str, str]
    ) -> object:
        def matching() -> list[Seen]:
            return [
                seen
                for seen in self._seen
                if match["host"] in ("", seen.host)
                and match["method"] in ("", seen.method)
                and match["route"] in ("", seen.route)
                and fnmatchcase(seen.path, match["path"])
                and seen.sent >= sent
                and (seen.finished or not finished)
            ]

        end = time.monotonic() + timeout_s
        with self.changed:
            while len(matching()) < count:
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{len(matching())} of {count} requests came: {match}")
                self.changed.wait(left)
            return msgspec.to_builtins(matching())

    def faults(self, faults: list[Json]) -> None:
        with self.changed:
            self._faults += msgspec.convert(faults, list[Fault])

    def commit(
        self, repo: str, files: dict[str, Json | None], branch: str, parent: str, title: str
    ) -> str:
        unpacked = {path: unpack(raw) for path, raw in files.items()}
        for file in unpacked.values():
            # Hashing a large file takes seconds, and is remembered: before others have to wait.
            _ = file and file.git_oid
        with self.changed:
            return self._site.world.repo(repo).commit(
                unpacked, branch=branch, parent=parent, title=title
            )

    def move(self, repo: str, ref: str, to: str) -> str:
        with self.changed:
            return self._site.world.repos[repo].move(ref, to)

    def tag(self, repo: str, name: str, at: str) -> str:
        with self.changed:
            return self._site.world.repos[repo].tag(name, at)

    def sha(self, repo: str, revision: str) -> str:
        with self.changed:
            return self._site.world.repos[repo].at(revision).sha

    def delete(self, repo: str) -> None:
        with self.changed:
            self._site.world.delete(repo)

    def rename(self, old: str, new: str) -> None:
        with self.changed:
            self._site.world.rename(old, new)

    def restrict(self, repo: str, private: bool, gated: str, granted: bool) -> None:
        with self.changed:
            held = self._site.world.repos[repo]
            held.private, held.gated = private, gated
            closed = {name for name in self._site.settings.closed if name != repo}
            self._site.settings.closed = tuple(sorted(closed if granted else {*closed, repo}))


VERBS: dict[str, Callable[..., object]] = {
    verb.__name__: verb
    for verb in (
        Book.requests, Book.reset, Book.wait, Book.faults, Book.commit, Book.move, Book.tag,
        Book.sha, Book.delete, Book.rename, Book.restrict,
    )
}  # fmt: skip
