"""Wrong bytes at the front: never a complete answer, also not in several pieces."""

from __future__ import annotations

from pathlib import Path

from proxy.mirror.follower import HOLD_BACK
from tests.mirror.bench import KB
from tests.server.world import MODEL, World, came_true, serving

WHOLE = MODEL.read(0, MODEL.size)
HUB_CLIENT = {"User-Agent": "unknown/None; hf_hub/2.4.0; python/3.11"}


async def mislead(world: World, shown: int = 256 * KB) -> bytes:
    """The wrong beginning that a client was shown before its connection was cut."""
    world.hub.wrong_times = len(world.hub.blamed) + 1
    gate = world.hub.hold_at(shown)
    wire = await world.send(world.url())
    await wire.read_head()
    got = await wire.read_exactly(shown)
    gate.open.set()
    rest, reset = await wire.read_rest()
    await wire.close()
    assert not reset, "a reset would not be retried"
    assert len(got + rest) < MODEL.size
    assert got != WHOLE[:shown]
    return got + rest


async def test_wrong_bytes_are_never_served_whole(world: World) -> None:
    await mislead(world)
    reply = await world.ask(world.url())
    assert reply.body == WHOLE


async def test_an_upstream_that_only_lies_ends_in_an_error(world: World) -> None:
    world.hub.wrong_times = 99
    for _ in range(3):
        reply = await world.ask(world.url())
        assert not (reply.status == 200 and reply.whole)
    reply = await world.ask(world.url())
    assert (reply.status, reply.code) == (502, "IntegrityError")
    assert not world.blob().exists()


async def test_who_holds_a_wrong_beginning_gets_no_right_end(world: World) -> None:
    shown = len(await mislead(world))
    reply = await world.ask(world.url(), headers={**HUB_CLIENT, "Range": f"bytes={shown}-"})
    assert reply.status == 200
    assert reply.body == WHOLE


async def test_who_came_back_before_the_verdict_gets_no_right_end_either(world: World) -> None:
    """The one who was cut for another reason, and waits to go on while the verdict falls."""
    shown = MODEL.size - HOLD_BACK
    world.hub.wrong_times = 1
    last = world.hub.hold_at(shown)
    wire = await world.send(world.url())
    await wire.read_head()
    assert await wire.read_exactly(shown) != WHOLE[:shown]
    await wire.close()
    requests = world.requests
    waiting = await world.send(world.url(), headers={**HUB_CLIENT, "Range": f"bytes={shown}-"})
    await came_true(lambda: world.requests > requests)
    last.open.set()
    head = await waiting.read_head()
    rest, _ = await waiting.read_rest()
    await waiting.close()
    assert head.status == 200
    assert rest == WHOLE


async def test_the_misled_are_remembered_across_a_restart(world: World, tmp_path: Path) -> None:
    shown = len(await mislead(world))
    async with serving(tmp_path, hub=world.hub) as again:
        reply = await again.ask(again.url(), headers={"Range": f"bytes={shown}-"})
        assert reply.status == 200
        assert reply.body == WHOLE


async def test_a_range_of_the_file_system_client_is_that_range_all_the_same(world: World) -> None:
    """It takes the body of any 200 for the range that it asked for."""
    await mislead(world)
    for start, stop in ((100, 200), (100, MODEL.size), (MODEL.size - 8, MODEL.size)):
        span = {"Range": f"bytes={start}-{stop - 1}"}
        reply = await world.ask(world.url(), headers={**HUB_CLIENT, **span})
        assert reply.status == 206
        assert reply.body == WHOLE[start:stop]


async def test_pieces_do_not_complete_what_begins_wrong(world: World) -> None:
    """As aria2c puts a file together: the first piece from one answer, the others by ranges."""
    shown = len(await mislead(world))
    span = {"Range": f"bytes={shown}-{shown + 99}", "User-Agent": "aria2/1.36.0"}
    reply = await world.ask(world.url(), headers=span)
    assert reply.status == 409
    assert b"in one piece" in reply.body
    first = await world.ask(world.url(), headers={**span, "Range": "bytes=0-99"})
    assert (first.status, first.body) == (206, WHOLE[:100])


async def test_others_who_name_the_last_byte_may_be_resuming(world: World) -> None:
    shown = len(await mislead(world))
    span = {"Range": f"bytes={shown}-{MODEL.size - 1}", "User-Agent": "downloader/1"}
    reply = await world.ask(world.url(), headers=span)
    assert reply.status == 200
    assert reply.body == WHOLE


async def test_a_broken_upstream_is_no_reason_to_break_the_answer(world: World) -> None:
    world.hub.cut_after = 300 * KB
    reply = await world.ask(world.url())
    assert reply.body == WHOLE
    assert [start for path, start in world.hub.fetched if path == "model.bin"] == [0, 300 * KB]


async def test_an_upstream_that_goes_down_half_way_ends_in_a_short_body(world: World) -> None:
    gate = world.hub.hold_at(256 * KB)
    wire = await world.send(world.url())
    await wire.read_head()
    got = await wire.read_exactly(256 * KB)
    world.hub.down = True
    gate.open.set()
    rest, reset = await wire.read_rest()
    await wire.close()
    assert not reset
    assert len(got + rest) < MODEL.size
    assert WHOLE.startswith(got + rest)
    world.hub.down, world.hub.before = False, None
    held = len(got + rest)
    reply = await world.ask(world.url(), headers={**HUB_CLIENT, "Range": f"bytes={held}-"})
    assert reply.status == 206
    assert got + rest + reply.body == WHOLE
