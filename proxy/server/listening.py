"""The socket that clients reach: bound, listening, closed without breaking answers under way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from proxy.config import Listen
from proxy.errors import MirrorError
from proxy.server import protocol
from proxy.server.app import Front
from proxy.server.site import Site


@dataclass(frozen=True, slots=True)
class Place:
    """An address as the kernel has it; a host may stand for several."""

    family: int
    address: tuple[str | int, ...]  # its port is never 0


def take(listen: Listen) -> list[socket.socket]:
    """Sockets bound there, which only processes of ours may share from here on. Blocking.

    Raises: MirrorError, if anybody has the address, another hubpin included.
    """
    taken: list[socket.socket] = []
    port = listen.port
    try:
        found = socket.getaddrinfo(
            listen.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, _, _, _, address in dict.fromkeys(found):
            sock = _socket(family)
            taken.append(sock)
            sock.bind((address[0], port, *address[2:]))
            port = int(sock.getsockname()[1])
            # Not before: with it, the bind would pass beside a stranger of the same user.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError as e:
        for sock in taken:
            sock.close()
        raise _taken(listen, e) from e
    return taken


def places(sockets: Sequence[socket.socket]) -> list[Place]:
    return [Place(sock.family, tuple(sock.getsockname())) for sock in sockets]


def join(shared: Sequence[Place]) -> list[socket.socket]:
    """Sockets of our own at places that the main process took. Raises: OSError."""
    joined = []
    for place in shared:
        sock = _socket(place.family)
        joined.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(place.address)
    return joined


def _socket(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


@asynccontextmanager
async def answering(
    site: Site, listen: Listen, sockets: Sequence[socket.socket] = ()
) -> AsyncIterator[Listen]:
    """Answers for the length of the block, on sockets that are bound already if there are some.

    At its end answers under way have `site.grace_s`. Raises: MirrorError (the address is taken).
    """
    config = site.mirror.config
    loop = asyncio.get_running_loop()
    front = protocol.Connections(
        Front(site),
        most=config.max_connections,
        most_per_address=config.max_connections_per_address,
        headers=site.headers,
    )
    servers: list[asyncio.Server] = []
    try:
        if sockets:
            for sock in sockets:
                made = await loop.create_server(front, sock=sock, backlog=protocol.BACKLOG)
                servers.append(made)
        else:
            made = await loop.create_server(
                front, listen.host, listen.port, backlog=protocol.BACKLOG, reuse_address=True
            )
            servers.append(made)
        listeners = [listener for server in servers for listener in server.sockets]
        for listener in listeners:
            protocol.guard_socket(listener)
    except OSError as e:
        raise _taken(listen, e) from e
    try:
        yield Listen(listen.host, int(listeners[0].getsockname()[1]))
    finally:
        for server in servers:
            server.close()
        if site.others is not None:
            site.others.stop()
        front.pre_shutdown()  # else clients that keep an idle connection use up the time
        await front.shutdown(site.grace_s)


def _taken(listen: Listen, e: OSError) -> MirrorError:
    return MirrorError(f"cannot listen on {listen}: {e.strerror or e}")
