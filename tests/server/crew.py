"""A mirror of several processes, and a way to reach each of them."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.content import Content
from tests.fakes.hub_server import HubServer
from tests.fakes.world import World, lfs, regular
from tests.faults.mirror import MirrorProcess, Source

REPO = "acme/model"
PARTS = {f"part-{number}.bin": Content(f"part {number}", 1 << 20) for number in range(8)}
BIG = Content("big", 48 << 20)
WORKERS = 3
# Of a world that is made anew for each test, and always the same.
_LOCKS: dict[tuple[str, ...], bytes] = {}


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Door:
    """A connection that stays open, and so belongs to one process of the mirror."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._connection.connect()
        reply = self.ask("/-/healthy")
        self.run = reply.headers["x-request-id"].partition("-")[0]
        self.pid = 0  # of the process at the other end

    @property
    def port(self) -> int:
        sock = self._connection.sock
        assert isinstance(sock, socket.socket)
        return int(sock.getsockname()[1])

    def send(
        self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """An answer whose head has come; who asks reads the rest."""
        self._connection.request(method, path, headers=dict(headers or {}))
        return self._connection.getresponse()

    def ask(
        self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> Reply:
        response = self.send(path, method=method, headers=headers)
        head = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, head, response.read())

    def file(self, path: str, repo: str = REPO) -> Reply:
        return self.ask(f"/{repo}/resolve/main/{path}")

    def commit(self, repo: str = REPO) -> str:
        return self.ask(f"/{repo}/resolve/main/config.json", method="HEAD").headers["x-repo-commit"]

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all labels that are not named."""
        total = 0.0
        text = self.ask("/metrics").body.decode()
        for found, value in re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE):
            if all(f'{key}="{one}"' in found for key, one in labels.items()):
                total += float(value)
        return total

    def close(self) -> None:
        self._connection.close()


class Crew:
    """The mirror, the hub behind it, and a door to each process."""

    def __init__(self, hub: HubServer, mirror: MirrorProcess) -> None:
        self.hub = hub
        self.mirror = mirror
        self.doors: list[Door] = []

    @property
    def main(self) -> Door:
        return next(door for door in self.doors if door.pid == self.mirror.pid)

    @property
    def workers(self) -> list[Door]:
        """Doors to all but the main process."""
        return [door for door in self.doors if door.pid != self.mirror.pid]

    def open_doors(self, count: int = WORKERS) -> None:
        """One to each process that answers, and no connection more."""
        self.close_doors()
        spare = []
        while len(self.doors) < count:
            door = Door(self.mirror.port)
            if door.run in {one.run for one in self.doors}:
                spare.append(door)
                assert len(spare) < 300, "some process is never reached"
            else:
                self.doors.append(door)
        pids = self.doors[0].ask("/-/status").json["workers"]
        for door in self.doors:
            door.pid = next(pid for pid in pids if _holds(pid, self.mirror.port, door.port))
        for door in spare:
            door.close()

    def close_doors(self) -> None:
        for door in self.doors:
            door.close()
        self.doors = []

    def pids(self) -> list[int]:
        """Of all who answer, as the main process says it."""
        found: list[int] = self.main.ask("/-/status").json["workers"]
        return found

    def fetcher(self) -> int:
        return next(
            pid
            for pid in self.mirror.family()
            if b"proxy.server.fetcher" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )


@contextmanager
def crew(
    workers: int = WORKERS, *, allow: tuple[str, ...] = (f"{REPO}@main",), **settings: str
) -> Iterator[Crew]:
    """Running, and everything on its list is locked."""
    world = World()
    world.repo(REPO).commit(
        {"config.json": regular("{}"), **{name: lfs(one) for name, one in PARTS.items()}}
    )
    world.repo("acme/big").commit({"config.json": regular("{}"), "big.bin": lfs(BIG)})
    for number in range(WORKERS):
        world.repo(f"acme/late-{number}").commit({"config.json": regular("{}")})
    with HubServer(world) as hub:
        mirror = MirrorProcess(
            [Source(hub.url, token=False, connections=1)],
            allow,
            lock=_LOCKS.get(allow, b""),
            settings={"workers": str(workers), **settings},
        )
        made = Crew(hub, mirror)
        try:
            if allow not in _LOCKS:
                assert mirror.command("lock").returncode == 0
                _LOCKS[allow] = mirror.lock.read_bytes()
            mirror.start()
            made.open_doors(workers)
            yield made
        finally:
            made.close_doors()
            mirror.close()


def until(what: str, true: Callable[[], object], *, timeout_s: float = 15.0) -> float:
    """Seconds until something that nobody announces has happened."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < timeout_s, f"not so in time: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


def gone(pid: int) -> bool:
    """Ended; what nobody waited for yet counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _holds(pid: int, local: int, remote: int) -> bool:
    """Whether a process has the connection between these two ports (proc(5), /proc/net/tcp)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = tuple(int(one.rpartition(":")[2], 16) for one in fields[1:3])
        if ports == (local, remote):
            link = f"socket:[{fields[9]}]"
            fds = Path(f"/proc/{pid}/fd")
            return any(str(fd.readlink()) == link for fd in list(fds.iterdir()) if fd.is_symlink())
    return False
