"""What those who watch ask: alive, ready, how it is, in numbers."""

from __future__ import annotations

import shutil

from prometheus_client.parser import text_string_to_metric_families

from tests.mirror.bench import KB
from tests.server.world import FILES, MODEL, World


async def status(world: World) -> dict[str, object]:
    reply = await world.ask("/-/status")
    assert reply.status == 200
    found = reply.json
    assert isinstance(found, dict)
    return found


async def parts(world: World, key: str) -> list[dict[str, object]]:
    listed = (await status(world))[key]
    assert isinstance(listed, list)
    return listed


async def pair(world: World) -> dict[str, object]:
    (found,) = [one for one in await parts(world, "pairs") if one["pair"] == "acme/tiny@main"]
    return found


async def metric(world: World, name: str, **labels: str) -> float:
    text = (await world.ask("/metrics")).body.decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return 0.0


async def test_a_running_server_is_healthy_and_ready(world: World) -> None:
    assert (await world.ask("/-/healthy")).status == 200
    assert (await world.ask("/-/ready")).status == 200


async def test_a_server_that_is_stopping_is_alive_and_not_ready(world: World) -> None:
    world.site.stopping = True
    assert (await world.ask("/-/healthy")).status == 200
    reply = await world.ask("/-/ready")
    assert reply.status == 503
    assert "Retry-After" in reply.headers


async def test_the_status_counts_what_is_held(world: World) -> None:
    cold = await pair(world)
    await world.warm()
    warm = await pair(world)
    assert (cold["files"], cold["bytes"]) == (len(FILES), sum(f.size for f in FILES.values()))
    assert cold["held_files"] == len([f for f in FILES.values() if not f.lfs])
    assert (warm["held_files"], warm["held_bytes"]) == (warm["files"], warm["bytes"])
    assert warm["commit"] == world.entry().commit


async def test_the_status_shows_downloads_in_flight(world: World) -> None:
    gate = world.hub.hold_at(256 * KB)
    wire = await world.send(world.url())
    await gate.reached.wait()
    (fill,) = await parts(world, "fills")
    assert (fill["path"], fill["size"]) == ("model.bin", MODEL.size)
    assert fill["done"] in range(256 * KB + 1)
    gate.open.set()
    await wire.read_rest()
    await wire.close()


async def test_the_status_is_told_while_the_disk_fails(world: World) -> None:
    """That is when somebody looks at it."""
    blobs = world.config.data / "blobs-v1"
    blobs.rename(world.config.data / "gone")
    blobs.write_text("in the way")
    assert (await pair(world))["held_files"] == 0


async def test_metrics_count_answers_bytes_and_downloads(world: World) -> None:
    names = {
        "refused": ("hubpin_requests_total", {"status": "404"}),
        "sent": ("hubpin_sent_bytes_total", {}),
        "filled": ("hubpin_filled_bytes_total", {}),
        "wrong": ("hubpin_integrity_failures_total", {"source": "disk"}),
    }
    before = {key: await metric(world, name, **labels) for key, (name, labels) in names.items()}
    await world.ask("/acme/other/resolve/main/x")
    await world.ask(world.url())
    world.blob().chmod(0o644)
    world.blob().write_bytes(b"x" * MODEL.size)
    await world.ask(world.url())
    after = {key: await metric(world, name, **labels) for key, (name, labels) in names.items()}
    assert after["refused"] == before["refused"] + 1
    assert after["sent"] == before["sent"] + 2 * MODEL.size
    assert after["filled"] == before["filled"] + 2 * MODEL.size
    assert after["wrong"] == before["wrong"] + 1


async def test_no_metric_names_a_repository(world: World) -> None:
    await world.ask(world.url())
    assert b"acme" not in (await world.ask("/metrics")).body


async def test_the_front_page_tells_how_to_use_it(world: World) -> None:
    reply = await world.ask("/", headers={"Host": "mirror.lan:8090"})
    assert b"HF_ENDPOINT=http://mirror.lan:8090" in reply.body


async def test_the_status_is_told_when_the_disk_is_gone(world: World) -> None:
    """Which is when somebody looks."""
    await world.warm()
    shutil.rmtree(world.config.data)
    found = await status(world)
    assert found["disk"] == {"free": None, "keep_free": 0, "room": None}
    assert (await pair(world))["held_files"] == 0
    assert (await world.ask("/metrics")).status == 200
