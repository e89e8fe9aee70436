"""Below requests: connections that are one too many, and bytes that are no request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from proxy.config import Listen
from proxy.server.listening import answering
from proxy.telemetry import metrics
from tests.server.world import World


@pytest.fixture
async def guarded(world: World) -> AsyncGenerator[World]:
    """The same, behind what guards connections; two of them are let in."""
    config = replace(world.config, max_connections_per_address=2)
    world.site.mirror = replace(world.mirror, config=config)
    world.site.grace_s = 0.1
    async with answering(world.site, Listen("127.0.0.1", 0)) as address:
        yield World(world.site, world.hub, address.port)


def counted(status: int) -> float:
    labels = {"status": str(status)}
    return metrics.REGISTRY.get_sample_value("hubpin_requests_total", labels) or 0.0


async def test_no_answer_names_what_it_is_written_in(guarded: World) -> None:
    before = counted(400)
    wire = await guarded.connect()
    wire.writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n")
    reply = await wire.read_head()
    await wire.close()
    assert (reply.status, reply.code) == (400, "BadRequest")
    for name, value in guarded.site.headers.items():
        assert reply.headers.getall(name) == [value]
    assert counted(400) == before + 1


async def test_a_connection_too_many_is_told_so_and_counted(guarded: World) -> None:
    before = counted(503)
    wires = [await guarded.connect() for _ in range(3)]
    async with asyncio.timeout(5):
        reply = await wires[-1].read_head()
    assert (reply.status, reply.code) == (503, "Busy")
    for name, value in guarded.site.headers.items():
        assert reply.headers.getall(name) == [value]
    assert counted(503) == before + 1
    for wire in wires:
        await wire.close()
