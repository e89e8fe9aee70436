"""Spans of files go into sockets, in turn, and nothing stays open whoever leaves."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from proxy.server.sender import Sender
from tests.fakes.content import Content
from tests.mirror.bench import KB, MB
from tests.server.world import came_true

DATA = Content("sent", 5 * MB)
WHOLE = DATA.read(0, DATA.size)


@pytest.fixture
async def sender() -> AsyncGenerator[Sender]:
    before = len(os.listdir("/proc/self/fd"))
    made = Sender()
    yield made
    made.close()
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) <= before, "every descriptor is closed"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "blob"
    path.write_bytes(WHOLE)
    fd = os.open(path, os.O_RDONLY)
    path.unlink()
    yield fd
    os.close(fd)


class Client:
    """Two ends of a connection; ours takes little before it is full."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        for one in (self.ours, self.theirs):
            one.setblocking(False)

    async def receive(self, count: int) -> bytes:
        got = bytearray()
        async with asyncio.timeout(10):
            while len(got) < count:
                piece = await asyncio.get_running_loop().sock_recv(self.theirs, MB)
                if not piece:
                    break
                got += piece
        return bytes(got)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def client(sender: Sender) -> Iterator[Client]:
    made = Client()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, DATA.size), (0, 1), (5, 5), (12345, 3 * MB + 7), (DATA.size - 1, DATA.size)],
)
async def test_a_span_arrives_as_it_is(
    sender: Sender, client: Client, file: int, start: int, stop: int
) -> None:
    sending = asyncio.create_task(sender.send(client.ours.fileno(), file, start, stop))
    assert await client.receive(stop - start) == WHOLE[start:stop]
    assert await sending == stop - start


async def test_a_file_that_ends_early_is_told_by_the_count(
    sender: Sender, client: Client, file: int
) -> None:
    sending = asyncio.create_task(
        sender.send(client.ours.fileno(), file, DATA.size - 10, DATA.size + 5)
    )
    assert await client.receive(10) == WHOLE[-10:]
    assert await sending == 10


async def test_a_client_that_leaves_is_a_connection_error(
    sender: Sender, client: Client, file: int
) -> None:
    sending = asyncio.create_task(sender.send(client.ours.fileno(), file, 0, DATA.size))
    await client.receive(100 * KB)
    client.theirs.close()
    with pytest.raises(ConnectionError):
        await sending


async def test_a_slow_client_holds_nobody_up(sender: Sender, client: Client, file: int) -> None:
    slow = asyncio.create_task(sender.send(client.ours.fileno(), file, 0, DATA.size))
    quick = Client()
    sending = asyncio.create_task(sender.send(quick.ours.fileno(), file, 0, DATA.size))
    assert await quick.receive(DATA.size) == WHOLE
    await sending
    quick.close()
    assert not slow.done()
    assert await client.receive(DATA.size) == WHOLE
    await slow


async def test_who_is_cancelled_while_the_client_is_full_lets_go_of_everything(
    sender: Sender, client: Client, file: int
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        sending = asyncio.create_task(sender.send(client.ours.fileno(), file, 0, DATA.size))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    await came_true(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_many_clients_all_get_everything(sender: Sender, file: int) -> None:
    clients = [Client() for _ in range(20)]
    sending = [
        asyncio.create_task(sender.send(one.ours.fileno(), file, n, n + 2 * MB))
        for n, one in enumerate(clients)
    ]
    got = await asyncio.gather(*(one.receive(2 * MB) for one in clients))
    assert all(one == WHOLE[n : n + 2 * MB] for n, one in enumerate(got))
    assert await asyncio.gather(*sending) == [2 * MB] * 20
    for one in clients:
        one.close()


async def test_the_end_of_the_server_ends_every_job(file: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    sender, clients = Sender(), [Client() for _ in range(5)]
    for _ in range(3):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # some are being read ahead
    sending = [
        asyncio.create_task(sender.send(one.ours.fileno(), file, n * MB, DATA.size))
        for n, one in enumerate(clients)
    ]
    await asyncio.sleep(0)
    await asyncio.to_thread(sender.close)
    async with asyncio.timeout(5):
        results = await asyncio.gather(*sending, return_exceptions=True)
    assert all(isinstance(one, ConnectionError) for one in results)
    for client in clients:
        client.close()
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_what_is_not_in_memory_is_read_first(
    sender: Sender, client: Client, file: int
) -> None:
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    sending = asyncio.create_task(sender.send(client.ours.fileno(), file, 0, DATA.size))
    assert await client.receive(DATA.size) == WHOLE
    await sending
