"""What a server writes down about who took what, and what it answers an auditor with."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

from proxy.tasks import audit as tasks
from proxy.telemetry import audit as logs
from tests.mirror.bench import KB
from tests.server.test_health import metric
from tests.server.world import FILES, MODEL, ODD_NAME, ODD_URL, World, came_true

HERE = "127.0.0.1"


def written(world: World, event: str) -> list[dict[str, Any]]:
    assert world.mirror.audit.flush()
    lines = [
        json.loads(line)
        for file in logs.files(world.config.data)
        for line in file.read_text().splitlines()
    ]
    return [line for line in lines if line["event"] == event]


async def asked(world: World, device: str = HERE, since: str = "") -> list[tasks.Event]:
    world.mirror.audit.flush()
    async with aclosing(tasks.audit(world.mirror, device=device, since=since)) as events:
        return [event async for event in events]


async def took(world: World, since: str = "") -> list[tasks.Took]:
    return [one for one in await asked(world, since=since) if isinstance(one, tasks.Took)]


async def take_all(world: World, revision: str = "main") -> None:
    for path in FILES:
        reply = await world.ask(world.url(ODD_URL if path == ODD_NAME else path, revision))
        assert reply.status == 200


async def test_a_file_is_written_down_when_it_is_out(world: World) -> None:
    reply = await world.ask(world.url(), headers={"User-Agent": "curl/8"})
    assert reply.whole
    (line,) = written(world, "served")
    entry = world.entry()
    assert (line["device"], line["agent"]) == (HERE, "curl/8")
    assert (line["repo"], line["commit"], line["path"]) == (entry.repo, entry.commit, entry.path)
    assert (line["digest"], line["start"], line["sent"]) == (entry.digest, 0, MODEL.size)
    assert line["complete"]
    assert line["request"] == reply.headers["X-Request-Id"]


async def test_a_head_is_not_written_down(world: World) -> None:
    await world.ask(world.url(), method="HEAD")
    assert written(world, "served") == []


async def test_a_client_that_leaves_took_what_was_sent(world: World) -> None:
    gate = world.hub.hold_at(256 * KB)
    wire = await world.send(world.url())
    await wire.read_head()
    await gate.reached.wait()
    await wire.close()
    await came_true(lambda: len(written(world, "served")) == 1)
    gate.open.set()
    await world.fetched()
    (line,) = written(world, "served")
    assert not line["complete"]
    assert line["sent"] <= 256 * KB
    assert (await took(world))[0].missing == tuple(sorted(set(FILES) - {"empty.txt"}))


async def test_an_auditor_hears_which_commit_a_device_has_completely(world: World) -> None:
    await take_all(world)
    mine = await took(world)
    pairs = {one.pair: one for one in mine}
    one = pairs["acme/tiny@main"]
    assert one.complete
    assert (one.files, one.taken_files, one.missing) == (len(FILES), len(FILES), ())
    assert one.commit == world.entry().commit
    assert one.fingerprint == world.mirror.catalog.snapshot(world.entry().repo, None).fingerprint
    assert "datasets/acme/d@main" not in pairs


async def test_ranges_add_up_to_a_file(world: World) -> None:
    for path in set(FILES) - {"model.bin", ODD_NAME}:
        await world.ask(world.url(path))
    await world.ask(world.url(ODD_URL))
    for span in ("0-99999", "100000-300000", "300001-"):
        (one, *_) = await took(world)
        assert one.missing == ("model.bin",)
        reply = await world.ask(world.url(), headers={"Range": f"bytes={span}"})
        assert reply.status == 206
    assert all(one.complete for one in await took(world))


async def test_what_was_taken_before_is_told_only_if_something_came_since(world: World) -> None:
    await take_all(world)
    assert await took(world, since="9999") == []
    assert all(one.complete for one in await took(world, since="2000"))


async def test_a_blob_by_digest_counts_for_every_pair_that_has_it(world: World) -> None:
    for path in set(FILES):
        digest = world.entry(path).digest.hex
        reply = await world.ask(f"/-/blobs/sha256/{digest}")
        assert reply.status == 200
    assert {line["commit"] for line in written(world, "served")} == {""}
    assert {one.pair for one in await took(world)} == {"acme/tiny@main", "acme/tiny@v1.0"}


async def test_a_commit_that_no_lock_has_is_named(world: World) -> None:
    await world.ask(world.url("config.json"))
    old = world.entry("config.json").commit
    world.config.lock.unlink()
    world.mirror.reloader.reload()
    (one,) = await took(world)
    assert (one.pair, one.commit, one.complete) == (None, old, False)


async def test_refusals_are_written_down_and_counted(world: World) -> None:
    for _ in range(2):
        await world.ask("/acme/other/resolve/main/x", method="HEAD")
    await world.ask(world.url("nothing.txt"))
    lines = written(world, "refused")
    assert [line["error"] for line in lines] == ["RepoNotAllowed"] * 2
    (one,) = [one for one in await asked(world) if isinstance(one, tasks.Refused)]
    assert (one.times, one.target) == (2, "/acme/other/resolve/main/x")


async def test_a_denied_format_is_refused_in_a_sentence_that_clients_show(world: World) -> None:
    text = world.config.allowlist.read_text()
    world.config.allowlist.write_text(f'formats: {{deny: [".bin"]}}\n{text}')
    world.mirror.reloader.reload()
    reply = await world.ask(world.url(), method="HEAD")
    assert (reply.status, reply.code) == (404, "EntryNotFound")
    for header in ("X-Error-Message", "X-HF-Warning"):
        assert "serves no .bin files" in reply.headers[header]
        assert world.config.contact in reply.headers[header]
    assert "X-Repo-Commit" not in reply.headers, "else clients would remember it"
    listed = (await world.ask("/api/models/acme/tiny/revision/main")).body
    assert b"model.bin" not in listed
    assert b"config.json" in listed
    assert written(world, "refused")[-1]["error"] == "FormatDenied"


async def test_other_devices_are_told_apart(world: World) -> None:
    await world.ask(world.url("config.json"))
    events = await asked(world, device="10.0.8.17")
    assert [type(event) for event in events] == [tasks.Read]
    assert await asked(world, device="") == await asked(world)


async def test_a_fetched_blob_names_its_source(world: World) -> None:
    await world.ask(world.url())
    (line,) = written(world, "fetched")
    assert (line["path"], line["source"]) == ("model.bin", world.hub.name)


async def test_every_wrong_attempt_is_counted_and_written_down(world: World) -> None:
    before = await metric(world, "hubpin_integrity_failures_total", source="upstream")
    world.hub.wrong_times = 2
    await world.ask(world.url("sub/deep/small.bin"))
    after = await metric(world, "hubpin_integrity_failures_total", source="upstream")
    assert after == before + 2
    (line,) = written(world, "wrong")
    assert (line["where"], line["times"], line["healed"]) == ("upstream", 2, True)


async def test_what_went_bad_on_disk_is_written_down(world: World) -> None:
    await world.warm()
    world.blob().chmod(0o644)
    world.blob().write_bytes(b"x" * MODEL.size)
    await world.ask(world.url())
    (line,) = written(world, "wrong")
    assert (line["where"], line["digest"]) == ("disk", world.entry().digest)


async def test_pins_and_broken_edits_are_written_down(world: World) -> None:
    pinned = written(world, "pinned")
    assert {line["pair"] for line in pinned} == {
        "acme/tiny@main", "acme/tiny@v1.0", "datasets/acme/d@main",
    }  # fmt: skip
    good = world.config.allowlist.read_text()
    world.config.allowlist.write_text("allow: 1\n")
    world.mirror.reloader.reload()
    world.config.allowlist.write_text(good.replace("  - datasets/acme/d@main\n", ""))
    world.mirror.reloader.reload()
    broken, mended = written(world, "reloaded")[-2:]
    assert "must be a list" in broken["error"]
    assert (mended["error"], mended["changed"]) == ("", 1)
    assert written(world, "pinned")[-1]["commit"] == ""


async def test_a_log_that_cannot_be_written_costs_nobody_anything(world: World) -> None:
    (world.config.data / logs.NAME).unlink(missing_ok=True)
    (world.config.data / logs.NAME).mkdir()
    assert (await world.ask(world.url())).whole
    assert not world.mirror.audit.flush()
    assert await metric(world, "hubpin_audit_failing") == 1
    (world.config.data / logs.NAME).rmdir()
    assert len(written(world, "served")) == 1
    assert await metric(world, "hubpin_audit_failing") == 0


async def test_free_disk_is_a_metric(world: World) -> None:
    assert await metric(world, "hubpin_disk_free_bytes") > 0


async def test_what_a_client_calls_itself_need_not_be_text(world: World) -> None:
    wire = await world.connect()
    request = f"GET {world.url('config.json')} HTTP/1.1\r\nHost: a\r\n"
    wire.writer.write(request.encode() + b"User-Agent: a\xff\xfeb\r\n\r\n")
    assert (await wire.read_head()).status == 200
    await wire.close()
    await world.ask(world.url("README.md"), headers={"User-Agent": "curl/8"})
    assert [line["agent"] for line in written(world, "served")] == ["a??b", "curl/8"]
