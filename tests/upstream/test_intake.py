"""Long bodies straight from their transport, whatever the other end of it does."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import aiohttp
import pytest
from yarl import URL

from proxy.config import Timeouts, UpstreamConfig
from proxy.errors import UpstreamUnavailable
from proxy.upstream import intake
from proxy.upstream.exchange import Answer, Exchange, Limits
from proxy.upstream.manners import Manners
from tests.fakes import tls
from tests.fakes.content import Content

KB = 1 << 10
MB = 1 << 20
DATA = Content("long", 9 * MB + 7).read(0, 9 * MB + 7)
BUFFER = 512 * KB

Send = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Far:
    """A server that sends what a test says, and somebody who asks it."""

    exchange: Exchange
    send: Send | None = None  # after the head; None: all of DATA
    head: str = f"Content-Length: {len(DATA)}"
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # the client hung up

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 200 OK\r\n{self.head}\r\n\r\n".encode())
            if self.send is None:
                writer.write(DATA)
            else:
                await self.send(writer)
            await writer.drain()
            await reader.read()
        except ConnectionError:
            pass
        finally:
            self.gone.set()
            writer.close()

    async def answer(self) -> Answer:
        return await self.exchange.get("/file", None)

    async def read(self, slow: Callable[[], Awaitable[None]] | None = None) -> bytes:
        got = bytearray()
        async with asyncio.timeout(20):
            with await self.answer() as answer:
                async with aclosing(answer.chunks()) as body:
                    async for piece in body:
                        if slow is not None:
                            await slow()
                        got += piece
        return bytes(got)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "WORTH", 4 * MB)
    monkeypatch.setattr(intake, "_MOST", BUFFER)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[intake.Intake]:
    """The bodies that came this way."""
    found: list[intake.Intake] = []
    take_over = intake.take_over

    def take(response: aiohttp.ClientResponse, others: int) -> tuple[bytes, intake.Intake] | None:
        it = take_over(response, others)
        if it is not None:
            found.append(it[1])
        return it

    monkeypatch.setattr(intake, "take_over", take)
    return found


@pytest.fixture(params=["http", "https"])
async def far(request: pytest.FixtureRequest) -> AsyncIterator[Far]:
    server_tls = client_tls = None
    if request.param == "https":
        server_tls = tls.server_context("good")
        client_tls = ssl.create_default_context(cafile=tls.ca_file())
    made: list[Far] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await made[0].serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_tls)
    port = server.sockets[0].getsockname()[1]
    exchange = Exchange(
        UpstreamConfig(URL(f"{request.param}://127.0.0.1:{port}")),
        Timeouts(connect=5.0, read=0.3),
        Limits(),
        Manners("far"),
    )
    exchange._client = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=client_tls or True), read_bufsize=64 * KB
    )
    made.append(Far(exchange))
    yield made[0]
    async with asyncio.timeout(5):
        await exchange.close()
    server.close()


async def test_the_bytes_come_in_order(far: Far, taken: list[intake.Intake]) -> None:
    assert await far.read() == DATA
    assert len(taken) == 1


async def test_a_slow_consumer_loses_nothing(far: Far) -> None:
    """Also not what came while both buffers were full and the other end hung up."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(DATA)
        writer.close()

    far.send = send
    assert await far.read(lambda: asyncio.sleep(0.01)) == DATA


async def test_a_piece_stays_as_it_is_until_the_next_is_asked_for(far: Far) -> None:
    at = 0
    with await far.answer() as answer:
        async with aclosing(answer.chunks()) as body:
            async for piece in body:
                await asyncio.sleep(0.01)  # meanwhile the other buffer fills
                assert piece == DATA[at : at + len(piece)]
                at += len(piece)
    assert at == len(DATA)


async def test_memory_is_two_buffers(far: Far, taken: list[intake.Intake]) -> None:
    seen: set[int] = set()
    sizes: list[int] = []
    with await far.answer() as answer:
        async with aclosing(answer.chunks()) as body:
            async for piece in body:
                if isinstance(piece, memoryview):
                    seen.add(id(piece.obj))
                    sizes.append(len(piece))
    assert len(seen) == 2
    assert max(sizes) <= BUFFER


async def test_bytes_that_trickle_do_not_wait_for_a_full_buffer(far: Far) -> None:
    go_on = asyncio.Event()

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(DATA[: MB + 1])
        await go_on.wait()
        writer.write(DATA[MB + 1 :])

    far.send = send
    got = 0
    async with asyncio.timeout(10):
        with await far.answer() as answer:
            async with aclosing(answer.chunks()) as body:
                async for piece in body:
                    got += len(piece)
                    if got == MB + 1:
                        go_on.set()
    assert got == len(DATA)


async def test_an_early_end_is_a_break_after_all_that_came(far: Far) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(DATA[: 5 * MB])
        await writer.drain()
        writer.close()

    far.send = send
    got = 0
    with await far.answer() as answer, pytest.raises(UpstreamUnavailable, match="broke"):
        async with aclosing(answer.chunks()) as body:
            async for piece in body:
                await asyncio.sleep(0.005)
                got += len(piece)
    assert got == 5 * MB


async def test_a_reset_is_a_break(far: Far) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(DATA[: 2 * MB])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    far.send = send
    with pytest.raises(UpstreamUnavailable, match="broke"):
        await far.read()


async def test_silence_is_noticed(far: Far) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(DATA[: 2 * MB])
        await far.gone.wait()

    far.send = send
    with pytest.raises(UpstreamUnavailable, match=r"nothing came from .* for 0\.3 s"):
        await far.read()


async def test_a_consumer_that_leaves_hangs_up_at_once(far: Far) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(DATA[:MB])
            await writer.drain()

    far.send = send
    far.head = f"Content-Length: {1 << 40}"
    stuck = asyncio.Event()

    async def wait() -> None:
        stuck.set()
        await asyncio.Event().wait()

    reading = asyncio.create_task(far.read(wait))
    await stuck.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    async with asyncio.timeout(2):
        await far.gone.wait()


async def test_a_session_that_closes_in_the_middle_does_not_hang(far: Far) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(DATA[:MB])

    far.send = send
    with await far.answer() as answer:
        async with aclosing(answer.chunks()) as body:
            await anext(body)
            async with asyncio.timeout(5):
                await far.exchange.close()
            with pytest.raises(UpstreamUnavailable):
                async for _ in body:
                    pass


async def test_more_than_was_announced_is_not_taken(far: Far, taken: list[intake.Intake]) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(DATA + b"more" * MB)

    far.send = send
    assert await far.read() == DATA
    assert len(taken) == 1


async def test_a_body_without_a_length_comes_the_ordinary_way(
    far: Far, taken: list[intake.Intake]
) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(f"{len(DATA):x}\r\n".encode() + DATA + b"\r\n0\r\n\r\n")

    far.send, far.head = send, "Transfer-Encoding: chunked"
    assert await far.read() == DATA
    assert taken == []


async def test_chunks_come_the_ordinary_way_even_with_a_length(
    far: Far, taken: list[intake.Intake], monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiohttp refuses an answer that has both; a parser that does not must do no harm."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(f"{len(DATA):x}\r\n".encode() + DATA + b"\r\n0\r\n\r\n")

    monkeypatch.setattr(aiohttp.ClientResponse, "content_length", len(DATA))
    far.send, far.head = send, "Transfer-Encoding: chunked"
    assert await far.read() == DATA
    assert taken == []


async def test_a_chunk_that_is_none_does_not_hang(far: Far) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(f"{MB:x}\r\n".encode() + DATA[:MB] + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)  # the body is being read
        writer.write(b"this is no length\r\n")

    far.send, far.head = send, "Transfer-Encoding: chunked"
    with pytest.raises(UpstreamUnavailable, match=r"nothing came from .* for 0\.3 s"):
        async with asyncio.timeout(5):
            await far.read()


async def test_a_short_body_comes_the_ordinary_way(
    far: Far, taken: list[intake.Intake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "WORTH", len(DATA) + 1)
    assert await far.read() == DATA
    assert taken == []
