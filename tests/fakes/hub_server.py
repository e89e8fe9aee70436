"""A Hub on real sockets: a port for the Hub, others for its CDN, in a thread of its own.

    with HubServer(acme_world()) as hub:
        hub.fault("U08", path="model.safetensors")
        … http client against hub.url …
        assert hub.cdn_gets("model.safetensors") == 2

`python -m tests.fakes.hub_server` runs the same as a process (see `hub_process.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import Self

import msgspec

from proxy.hub.wire import Json
from tests.fakes import book, tls
from tests.fakes.book import Book
from tests.fakes.content import Literal
from tests.fakes.control import Addresses, HubControl
from tests.fakes.http1 import MAX_HEAD, Connection, Gate, Reply, Seen
from tests.fakes.settings import Settings
from tests.fakes.site import Site
from tests.fakes.world import World


class Port:
    """One listening address, which can stop listening and begin again under the same number."""

    def __init__(self, name: str, host: str, number: int) -> None:
        self.name = name  # hub, cdn, mirror or control
        self.host = host
        self.number = number
        self.server: asyncio.Server | None = None
        self.hole: list[socket.socket] = []  # what drops connections while this is a black hole
        self.open = 0  # connections

    def url(self, scheme: str = "http") -> str:
        return f"{scheme}://{self.host}:{self.number}"


class HubServer(HubControl):
    """A fake Hub in this process; a context manager for tests with and without an event loop."""

    def __init__(self, world: World | None = None, settings: Settings | None = None) -> None:
        self.world = world if world is not None else World()
        self.settings = settings or Settings()
        self.site = Site(self.world, self.settings)
        self._book = Book(self.site)
        self._ports: list[Port] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._loop: asyncio.AbstractEventLoop
        self._gate: Gate
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake hub")
        self._thread.start()
        try:
            self._run(self._start())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closing twice is fine."""
        if self._thread is None:
            return
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._thread = None
        self._loop.close()

    def call(self, verb: str, arguments: Json) -> object:
        if verb in book.VERBS:
            return book.VERBS[verb](self._book, **arguments)
        if verb in _VERBS:
            return _VERBS[verb](self, **arguments)
        raise KeyError(f"no verb {verb!r}")

    def control_port(self) -> str:
        """Open a port that takes `POST /{verb}`, for a test in another process; its URL."""
        port = Port("control", "127.0.0.1", 0)
        self._run(self._listen(port))
        self.addresses.control = port.url()
        return port.url()

    # --- sockets, all on the thread's loop ---

    def _run(self, work: object) -> None:
        if not asyncio.iscoroutine(work):
            raise TypeError("not a coroutine")
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _start(self) -> None:
        self._gate = Gate()
        chosen = self.settings
        self._ports.append(Port("hub", chosen.hub_host, chosen.hub_port))
        self._ports += [Port("cdn", chosen.cdn_host, 0) for _ in range(chosen.cdns)]
        if chosen.mirror:
            self._ports.append(Port("mirror", chosen.hub_host, 0))
        for port in list(self._ports):
            await self._listen(port)
        self._name_addresses()

    def _name_addresses(self) -> None:
        scheme = "https" if self.settings.tls else "http"
        self.site.hub_url = next(p.url(scheme) for p in self._ports if p.name == "hub")
        self.site.cdn_urls = [p.url() for p in self._ports if p.name == "cdn"]
        control = next((p.url() for p in self._ports if p.name == "control"), "")
        mirror = next((p.url() for p in self._ports if p.name == "mirror"), "")
        self.addresses = Addresses(
            self.site.hub_url, self.site.cdn_urls, mirror, control,
            str(tls.ca_file()) if self.settings.tls else "",
        )  # fmt: skip

    async def _listen(self, port: Port) -> None:
        if port.server is not None:
            return
        _close(port.hole)
        context = None
        if port.name == "hub" and self.settings.tls:
            context = tls.server_context(self.settings.tls)
        port.server = await asyncio.start_server(
            lambda reader, writer: self._connected(port, reader, writer),
            port.host, port.number, limit=MAX_HEAD, backlog=4096, ssl=context,
        )  # fmt: skip
        port.number = port.server.sockets[0].getsockname()[1]
        if port not in self._ports:
            self._ports.append(port)

    async def _deafen(self, port: Port, *, blackhole: bool = False) -> None:
        """Stop listening; a black hole holds the port and lets nobody finish a handshake."""
        if port.server is None:
            return
        port.server.close()
        port.server = None
        # Bound, so that nobody else is given the number; not listening, so that all are refused.
        hole = socket.socket()
        port.hole.append(hole)
        hole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        hole.bind((port.host, port.number))
        if blackhole:
            hole.listen(0)
            for _ in range(4):  # fill the queue: Linux then drops further SYNs
                filler = socket.socket()
                filler.setblocking(False)
                port.hole.append(filler)
                with contextlib.suppress(BlockingIOError):
                    filler.connect((port.host, port.number))

    async def _stop(self) -> None:
        for port in self._ports:
            await self._deafen(port)
            _close(port.hole)
        await self._cut_everyone("")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    async def _cut_everyone(self, name: str) -> None:
        """Reset the connections of the ports of that name, or of all but the control port."""
        for task in list(self._tasks):
            of = task.get_name()
            if of == name or (not name and of != "control"):
                task.cancel()
        await asyncio.sleep(0)

    async def _connected(
        self, port: Port, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.set_name(port.name)
        self._tasks.add(task)
        port.open += 1
        self._connections += 1
        connection = Connection(reader, writer, self._gate, self._book.notify)
        most = self.settings.max_connections
        try:
            if most is not None and port.open > most and port.name != "control":
                connection.reset()
            elif port.name == "control":
                await self._serve_control(connection)
            else:
                await self._serve(port, connection, self._connections)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client left
        except asyncio.CancelledError:
            connection.reset()
        finally:
            port.open -= 1
            try:
                await connection.close()
            finally:
                self._tasks.discard(task)

    async def _serve(self, port: Port, connection: Connection, number: int) -> None:
        latency_s = self.settings.latency_s  # of the handshake
        while (request := await connection.receive()) is not None:
            reply, seen = self._book.answer(port.name, request, number)
            latency_s += self.settings.latency_s
            if latency_s:
                await asyncio.sleep(latency_s)
                latency_s = 0.0
            reusable = await connection.send(reply, seen, rate=self.settings.bandwidth)
            self._book.notify()
            if not reusable or request.headers.get("connection", "").lower() == "close":
                return

    async def _serve_control(self, connection: Connection) -> None:
        """`POST /{verb}` with the arguments as JSON; 400 and the error's text if it fails."""
        while (request := await connection.receive()) is not None:
            arguments = msgspec.json.decode(request.body or b"{}", type=dict[str, object])
            seen = Seen(0, "control", request.method, request.target, {}, route="control")
            try:
                # `wait` blocks, and some verbs wait for this loop: not on it.
                result = await asyncio.to_thread(self.call, request.raw_path.strip("/"), arguments)
                reply = Reply(200, [], Literal(json.dumps(result).encode()))
            except Exception as e:  # whatever it is, the test that asked must see it
                raw: Json = {"error": type(e).__name__, "message": str(e)}
                reply = Reply(400, [], Literal(msgspec.json.encode(raw)))
            await connection.send(reply, seen, rate=None)

    # --- verbs ---

    def _do_heal(self) -> None:
        self._book.forget_faults()
        self._do_release()
        self._do_listen()

    def _do_release(self) -> None:
        self._book.forget_faults("hold")

        async def release() -> None:
            self._gate.release()

        self._run(release())

    def _do_refuse(self, blackhole: bool = False) -> None:
        async def refuse() -> None:
            for port in self._ports:
                if port.name != "control":
                    await self._deafen(port, blackhole=blackhole)
            await self._cut_everyone("")

        self._run(refuse())

    def _do_listen(self) -> None:
        async def listen() -> None:
            for port in self._ports:
                await self._listen(port)

        self._run(listen())

    def _do_set(self, settings: Json) -> object:
        before = self.settings.tls
        with self._book.changed:
            raw = {**asdict(self.settings), **settings}
            changed = msgspec.convert(raw, Settings)
            for name in settings:
                setattr(self.settings, name, getattr(changed, name))
        if self.settings.tls != before:
            self._run(self._relisten_hub())
            self._name_addresses()
        return msgspec.to_builtins(copy.copy(self.addresses))

    async def _relisten_hub(self) -> None:
        hub = next(port for port in self._ports if port.name == "hub")
        await self._deafen(hub)
        await self._cut_everyone("hub")
        await self._listen(hub)


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
    sockets.clear()


_VERBS: dict[str, Callable[..., object]] = {
    "heal": HubServer._do_heal,
    "release": HubServer._do_release,
    "refuse": HubServer._do_refuse,
    "listen": HubServer._do_listen,
    "set": HubServer._do_set,
}

if __name__ == "__main__":
    from tests.fakes.hub_process import main

    sys.exit(main())
