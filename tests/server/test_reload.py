"""An edit takes effect as a whole or not at all, and stops nobody."""

from __future__ import annotations

from tests.mirror.bench import KB
from tests.server.world import ALLOWLIST, MODEL, World

WHOLE = MODEL.read(0, MODEL.size)


def edit(world: World, text: str) -> bool:
    world.config.allowlist.write_text(text)
    return world.mirror.reloader.reload()


async def stale(world: World) -> bytes:
    text = (await world.ask("/metrics")).body
    return next(one for one in text.splitlines() if one.startswith(b"hubpin_catalog_stale "))


async def test_what_is_taken_off_the_list_is_refused_from_then_on(world: World) -> None:
    assert edit(world, "allow: [datasets/acme/d@main]")
    assert (await world.ask(world.url("config.json"))).code == "RepoNotFound"
    assert (await world.ask("/datasets/acme/d/resolve/main/data.csv")).status == 200
    assert edit(world, ALLOWLIST)
    assert (await world.ask(world.url("config.json"))).status == 200


async def test_an_answer_under_way_ends_as_it_began(world: World) -> None:
    gate = world.hub.hold_at(256 * KB)
    wire = await world.send(world.url())
    await wire.read_head()
    got = await wire.read_exactly(256 * KB)
    assert edit(world, "allow: []")
    gate.open.set()
    rest, _ = await wire.read_rest()
    await wire.close()
    assert got + rest == WHOLE
    assert (await world.ask(world.url())).status == 404


async def test_a_broken_edit_changes_nothing_and_says_why(world: World) -> None:
    commit = world.entry().commit
    assert not edit(world, ALLOWLIST + "  - acme/tiny@main\n")
    assert (await world.ask(world.url("config.json"))).headers["X-Repo-Commit"] == commit
    status = (await world.ask("/-/status")).json
    assert isinstance(status, dict)
    assert "allowlist.yaml:" in status["catalog_error"]
    assert await stale(world) == b"hubpin_catalog_stale 1.0"
    assert edit(world, ALLOWLIST)
    status = (await world.ask("/-/status")).json
    assert isinstance(status, dict)
    assert status["catalog_error"] is None
    assert await stale(world) == b"hubpin_catalog_stale 0.0"


async def test_a_broken_lock_changes_nothing_either(world: World) -> None:
    before = world.config.lock.read_bytes()
    for broken in (b"", b"{", b"[]", before[:-20], b"\xff"):
        world.config.lock.write_bytes(broken)
        assert not world.mirror.reloader.reload()
        assert (await world.ask(world.url("config.json"))).status == 200
    world.config.lock.write_bytes(before)
    assert world.mirror.reloader.reload()


async def test_a_moved_pin_is_served_as_soon_as_it_is_in_force(world: World) -> None:
    before = world.entry()
    world.config.lock.unlink()
    world.hub.publish("acme/tiny", "config.json", b'{"new": 1}', lfs=False)
    await world.lock()
    reply = await world.ask(world.url("config.json"))
    assert reply.body == b'{"new": 1}'
    assert reply.headers["X-Repo-Commit"] != before.commit
    info = await world.ask("/api/models/acme/tiny/revision/main")
    assert info.headers["X-Repo-Commit"] == reply.headers["X-Repo-Commit"]


async def test_a_lock_without_the_list_opens_nothing(world: World) -> None:
    assert edit(world, "allow: []")
    assert world.mirror.catalog.lock.pins
    for target in (world.url("config.json"), "/api/models/acme/tiny"):
        assert (await world.ask(target)).code == "RepoNotFound"
    digest = world.entry().digest.hex
    assert (await world.ask(f"/-/blobs/sha256/{digest}")).status == 404
