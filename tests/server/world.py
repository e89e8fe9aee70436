"""A mirror with its front on a real socket, a hub in memory behind it, and a client by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from multidict import CIMultiDict

from proxy.assemble import open_audit
from proxy.config import Config
from proxy.mirror.cache import BlobCache
from proxy.mirror.mirror import Mirror
from proxy.mirror.transfer import Tuning
from proxy.pins.lock import Entry
from proxy.pins.reload import Reloader
from proxy.server.app import Front
from proxy.server.autolock import AutoLock
from proxy.server.sender import Sender
from proxy.server.site import Site
from proxy.server.upkeep import Upkeep
from proxy.store.local import LocalStore
from proxy.store.recency import Recency
from proxy.tasks import lock
from tests.fakes.content import Content
from tests.fakes.world import File, lfs, regular
from tests.mirror.bench import KB, QUICK, Puppet

MODEL = Content("model", 700 * KB)
README = "---\nlicense: mit\n---\n# Tiny\n"
ODD_NAME = "sub/a#b?c%20d+e é.txt"
ODD_URL = "sub/a%23b%3Fc%2520d%2Be%20%C3%A9.txt"
FILES: dict[str, File] = {
    "README.md": regular(README),
    "config.json": regular("{}"),
    "empty.txt": regular(""),
    "model.bin": lfs(MODEL),
    ODD_NAME: regular("a name with everything\n"),
    "sub/deep/small.bin": lfs(b"small weights"),
}
ALLOWLIST = """
allow:
  - acme/tiny@main
  - repo: acme/tiny
    revision: v1.0
    notice: "Only for research."
  - datasets/acme/d@main
"""


@dataclass
class Reply:
    """What came back over one connection, up to its end."""

    raw: bytes
    head: str = ""
    body: bytes = b""
    status: int = 0
    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)
    reset: bool = False  # ended by RST instead of FIN

    def __post_init__(self) -> None:
        head, _, self.body = self.raw.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        first, *lines = self.head.split("\r\n")
        if first.startswith("HTTP/"):
            self.status = int(first.split(" ")[1])
        for line in lines:
            name, _, value = line.partition(":")
            self.headers.add(name, value.strip())

    @property
    def length(self) -> int:
        return int(self.headers["Content-Length"])

    @property
    def whole(self) -> bool:
        """Whether a client would take this for a complete answer."""
        return len(self.body) == self.length and not self.reset

    @property
    def json(self) -> object:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.headers.get("X-Error-Code", "")


class Wire:
    """One connection, by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read_head(self) -> Reply:
        async with asyncio.timeout(10):
            return Reply(await self.reader.readuntil(b"\r\n\r\n"))

    async def read_exactly(self, count: int) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.readexactly(count)

    async def read_rest(self) -> tuple[bytes, bool]:
        """Everything up to the end, and whether that was a reset."""
        got = bytearray()
        async with asyncio.timeout(20):
            try:
                while piece := await self.reader.read(1 << 20):
                    got += piece
            except ConnectionResetError:
                return bytes(got), True
        return bytes(got), False

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


class World:
    """Everything that a test of the front wants at hand."""

    def __init__(self, site: Site, hub: Puppet, port: int) -> None:
        self.site = site
        self.mirror = site.mirror
        self.hub = hub
        self.port = port
        self.requests = 0  # that have begun to be answered

    @property
    def config(self) -> Config:
        return self.mirror.config

    def entry(self, path: str = "model.bin", repo: str = "acme/tiny") -> Entry:
        return self.hub.entries(repo)[path]

    def blob(self, path: str = "model.bin") -> Path:
        digest = self.entry(path).digest.hex
        return self.config.data / "blobs-v1" / "sha256" / digest[:2] / digest

    async def lock(self) -> None:
        """As `hubpin lock` does, with the server running."""
        async for event in lock.lock(self.mirror):
            assert not isinstance(event, lock.Failed), event.error
        self.mirror.reloader.reload()

    async def warm(self) -> None:
        for path in FILES:
            await self.mirror.cache.hold(self.entry(path))

    async def fetched(self) -> None:
        """Returns when the only download in flight has ended well."""
        (fill,) = self.mirror.cache.fills
        async with asyncio.timeout(10):
            while not fill.held:
                await fill.changed.wait()

    async def connect(self) -> Wire:
        return Wire(*await asyncio.open_connection("127.0.0.1", self.port))

    async def send(
        self,
        target: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Wire:
        """A request on its way; the connection is asked to close afterwards."""
        lines = {"Host": f"127.0.0.1:{self.port}", "Connection": "close", **(headers or {})}
        if body:
            lines["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        wire = await self.connect()
        wire.writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)
        return wire

    async def ask(
        self,
        target: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Reply:
        wire = await self.send(target, method=method, headers=headers, body=body)
        return await self._rest_of(wire)

    async def ask_raw(self, request: bytes) -> Reply:
        """Whatever bytes; the connection is half closed after them."""
        wire = await self.connect()
        wire.writer.write(request)
        wire.writer.write_eof()
        return await self._rest_of(wire)

    async def _rest_of(self, wire: Wire) -> Reply:
        try:
            raw, reset = await wire.read_rest()
        finally:
            await wire.close()
        return Reply(raw, reset=reset)

    def url(self, path: str = "model.bin", revision: str = "main") -> str:
        return f"/acme/tiny/resolve/{revision}/{path}"


async def came_true(true: Callable[[], bool]) -> None:
    """Returns when something that nobody announces has happened."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.002)


def publish(hub: Puppet) -> None:
    tiny = hub.world.repo("acme/tiny")
    tiny.commit(FILES)
    tiny.tag("v1.0")
    hub.world.repo("datasets/acme/d").commit({"data.csv": regular("a,b\n1,2\n")})


@asynccontextmanager
async def serving(
    folder: Path,
    *,
    allowlist: str = ALLOWLIST,
    hub: Puppet | None = None,
    auto_lock: bool = False,
    tuning: Tuning = QUICK,
    accel: str = "",
) -> AsyncIterator[World]:
    """A running front; nothing is locked yet."""
    if hub is None:
        hub = Puppet()
        publish(hub)
    config = Config(
        data=folder / "data",
        allowlist=folder / "allowlist.yaml",
        contact="ml-platform, ext. 4711",
        upstreams=(),
        auto_lock=auto_lock,
        keep_free=0,
        accel=accel,
    )
    (config.data / "spool").mkdir(parents=True, exist_ok=True)
    config.allowlist.write_text(allowlist)
    store = LocalStore(config.data)
    recency = Recency(config.data / "index-v1")
    audit = open_audit(config)
    cache = BlobCache(store, hub, data=config.data, recency=recency, tuning=tuning, audit=audit)
    reloader = Reloader(config.allowlist, config.lock, audit)
    mirror = Mirror(config, reloader, cache, store, recency, hub, (hub,), audit)
    cache.recover()
    sender = Sender()
    site = Site(mirror, AutoLock(mirror), Upkeep(mirror), sender)
    front = Front(site)

    async def counting(request: web.BaseRequest) -> web.StreamResponse:
        world.requests += 1
        return await front(request)

    connections = web.Server(counting, access_log=None, handler_cancellation=True)
    server = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0)
    locking = asyncio.create_task(site.autolock.run())
    world = World(site, hub, server.sockets[0].getsockname()[1])
    try:
        yield world
    finally:
        locking.cancel()
        await asyncio.gather(locking, return_exceptions=True)
        server.close()
        await server.wait_closed()
        await connections.shutdown(5.0)
        sender.close()
        await site.packs.close()
        await cache.close()
        recency.close()
        audit.close()
