"""One mirror, one misbehaving Hub, one client, and what is asked of every row."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.fakes.content import Blob, Content, Literal
from tests.fakes.control import HubControl
from tests.fakes.settings import TOKEN
from tests.fakes.world import File, World, lfs, regular
from tests.faults import client
from tests.faults.client import CLEAN, RIGHT, Download, Got, Verdict, ask
from tests.faults.mirror import MirrorProcess

REPO = "acme/model"
FILE = "model.bin"  # LFS, so it comes from the CDN
SMALL = "config.json"  # comes from the hub itself
WEIGHTS = Content("weights", (3 << 20) + 17)
CONFIG = Content("config", 2000)
PARTS = tuple(f"part-{number}.bin" for number in range(8))  # LFS, for many faults at once
FILES: dict[str, File] = {
    FILE: lfs(WEIGHTS),
    SMALL: regular(CONFIG),
    **{name: lfs(Content(name, (1 << 20) + 333)) for name in PARTS},
    "README.md": regular("---\nlicense: mit\n---\n# model\n"),
}
ALLOW = (f"{REPO}@main", "acme/big@main")
BIG_PATH = "/acme/big/resolve/main/big.bin"
BIG = Content("big", 200 << 20)
MOST_REQUESTS = 60
HEALED_S = 40.0  # until everything is right again; what is known to be bad rests for 10 s


def small_world() -> World:
    world = World()
    world.repo(REPO).commit(FILES)
    return world


class Bench:
    """`get` while the fault is on; `aftermath` when it is over."""

    def __init__(self, hub: HubControl, mirror: MirrorProcess, repo: str = REPO) -> None:
        self.hub = hub
        self.mirror = mirror
        self.repo = repo
        self.hubs = [hub]  # whoever may have seen our requests
        self._pid = mirror.pid
        self._downloads: dict[str, Download] = {}
        self._answers: list[Got] = []
        self._pool = ThreadPoolExecutor(8)

    def url(self, path: str, revision: str = "main") -> str:
        return f"{self.mirror.url}/{self.repo}/resolve/{revision}/{path}"

    def ask(self, url: str, **options: object) -> Got:
        """Any request; its answer is searched for tokens afterwards."""
        got = ask(url if "://" in url else self.mirror.url + url, **options)  # type: ignore[arg-type]  # handed on
        self._answers.append(got)
        return got

    def get(self, path: str = FILE, content: Blob | None = None) -> Verdict:
        """The next attempt of a client that keeps what it got, whether right or not."""
        if path not in self._downloads:
            self._downloads[path] = Download(self.url(path), content or FILES[path].content)
        verdict = self._downloads[path].attempt()
        got = self._downloads[path].answers[-1]
        assert verdict in (RIGHT, CLEAN), got.head
        assert got.status != 500, f"an upstream's fault is told as ours: {got.head}"
        return verdict

    def begin(self, path: str) -> Future[Verdict]:
        """`get` while something else is done."""
        return self._pool.submit(self.get, path)

    def get_each(self, paths: Sequence[str]) -> list[Verdict]:
        """`get` of several files at once."""
        return [future.result() for future in [self.begin(path) for path in paths]]

    def last(self, path: str = FILE) -> Got:
        return self._downloads[path].answers[-1]

    def get_in_tries(self, most: int, path: str = FILE) -> None:
        """A client that comes again has the right file after at most so many answers."""
        for _ in range(most):
            if self.get(path) is RIGHT:
                return
        raise AssertionError(f"not right after {most} answers: {self.last(path).head}")

    def set_aside(self, path: str) -> None:
        """This file may stay unavailable when the fault is over."""
        del self._downloads[path]

    def ratio(self, path: str = FILE) -> float:
        """Bytes of the file that upstreams sent, by its size."""
        sent = sum(s.sent for hub in self.hubs for s in hub.requests(path=path))
        return sent / FILES[path].size

    def logged(self, text: str) -> bool:
        return text in self.mirror.log

    # --- what is asked of every row ---

    def aftermath(self) -> None:
        self._pool.shutdown()
        for hub in self.hubs:
            hub.heal()
        waiting = self._downloads or {SMALL: Download(self.url(SMALL), CONFIG)}
        fresh = [Download(download.url, Literal(download.want)) for download in waiting.values()]
        for download in [*waiting.values(), *fresh]:
            try:
                until("the file is right again", partial(_heals, download), HEALED_S)
            except AssertionError as e:
                e.add_note(f"{download.answers[-1].head}\n{self.mirror.log[-4000:]}")
                raise
            self._answers += download.answers
        assert self.mirror.alive
        assert self.mirror.pid == self._pid
        asked = sum(len(hub.requests()) for hub in self.hubs)
        assert asked <= MOST_REQUESTS * len(waiting), f"{asked} requests went upstream"
        log = self.mirror.log
        assert "Traceback" not in log, log
        self._check_canaries()

    def _check_canaries(self) -> None:
        for hub in self.hubs:
            for seen in hub.requests():
                sent = "\n".join(seen.headers.values())
                assert client.TOKEN not in sent + seen.target
                assert client.COOKIE not in sent + seen.target
                if seen.host == "cdn":
                    assert "authorization" not in seen.headers
                    assert TOKEN not in sent + seen.target
        for path in ("/metrics", "/-/status", "/-/lock"):
            self.ask(path)
        secrets = [text.encode() for text in (TOKEN, client.TOKEN, client.COOKIE)]
        for got in self._answers:
            told = got.head.encode("latin-1") + bytes(got.body)
            assert not any(secret in told for secret in secrets), got.head
        for file in _files(self.mirror):
            content = file.read_bytes()
            assert not any(secret in content for secret in secrets), file


def until(what: str, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Raises: AssertionError, if it does not come true in time."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.1)


def _heals(download: Download) -> bool:
    verdict = download.attempt() if not download.complete else RIGHT
    assert verdict in (RIGHT, CLEAN), download.answers[-1].head
    return download.complete


def _files(mirror: MirrorProcess) -> list[Path]:
    """All that it wrote: its log, its lock, its data."""
    data = [path for path in mirror.data.rglob("*") if path.is_file()]
    return [mirror.folder / "log", mirror.lock, *data]
