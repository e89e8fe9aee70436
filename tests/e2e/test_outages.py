"""What devices notice of an upstream that is away, slow or gone, and of a mirror that dies."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.conftest import MakeDevice, MakeMirror
from tests.e2e.device import Call, digests, truth, until
from tests.e2e.marks import E2E, every_client, every_hub, only
from tests.e2e.mirrors import MirrorProcess
from tests.fakes.hub_process import HubProcess
from tests.fakes.rawclient import Answer
from tests.fakes.settings import Settings
from tests.fakes.world import World

pytestmark = E2E

WEIGHTS = "model.safetensors"


@every_hub
def test_a03_a_new_device_needs_no_upstream_once_the_mirror_is_warm(
    mirror: MirrorProcess, upstream: HubProcess, device: MakeDevice, world: World
) -> None:
    assert not device(mirror.url).snapshot().error
    upstream.close()
    fresh = device(mirror.url).snapshot()
    assert digests(fresh.folder) == truth(world.repo("acme/tiny").at("main"))


@only("hub-2.4.0", "hub-0.36.2")
def test_a03_after_hubpin_warm_and_a_restart_with_offline_set(
    mirror: MirrorProcess, upstream: HubProcess, device: MakeDevice, world: World
) -> None:
    warm = mirror.command("warm")
    assert warm.status == 0, warm.stderr
    mirror.stop()
    with mirror.config.open("a") as config:
        config.write("offline: true\n")
    upstream.close()
    mirror.start()
    calls: list[Call] = [
        ("snapshot_download", {"repo_id": "acme/tiny", "revision": revision})
        for revision in ("main", "v1.0", "feature/x", "refs/pr/1")
    ]
    tiny = world.repo("acme/tiny")
    for (_, call), got in zip(calls, device(mirror.url).start(*calls).outcomes(), strict=True):
        assert digests(got.folder) == truth(tiny.at(str(call["revision"])))


@every_client
def test_a19_the_head_of_a_cold_file_comes_from_the_lock(
    mirror: MirrorProcess, upstream: HubProcess, device: MakeDevice
) -> None:
    url = f"{mirror.url}/acme/tiny/resolve/main"
    # The client makes itself ready during its first call, which says nothing about the mirror.
    calls: list[Call] = [
        ("get_hf_file_metadata", {"url": f"{url}/{path}"}) for path in ("config.json", WEIGHTS)
    ]
    upstream.set(latency_s=30)
    slow = device(mirror.url).start(*calls).outcomes()[-1]
    upstream.refuse()
    away = device(mirror.url).start(*calls).outcomes()[-1]
    for got in (slow, away):
        assert not got.error, got.trace
        assert got.seconds < 1


@only("hub-2.4.0", "hub-0.36.2")
def test_a_cold_file_while_the_upstream_is_away_is_no_missing_file(
    mirror: MirrorProcess, upstream: HubProcess, device: MakeDevice, world: World
) -> None:
    """A client that were told 404 would remember that the file does not exist."""
    upstream.refuse()
    machine = device(mirror.url)
    first = machine.start(("hf_hub_download", {"repo_id": "acme/tiny", "filename": WEIGHTS}))
    until("the mirror gives up", lambda: ": 504 " in mirror.log, timeout_s=40)
    upstream.listen()
    got = first.outcome()  # 0.x tries again by itself
    assert not got.error or "LocalEntryNotFoundError" in got.kinds or "504" in got.text, got.trace
    assert not list(machine.hf_home.glob("hub/**/.no_exist"))
    assert _digest(machine.file(WEIGHTS).folder) == _right(world)


@only("hub-2.4.0", "hub-0.36.2")
def test_a17_an_upstream_that_breaks_off_is_asked_for_the_rest(
    mirror: MirrorProcess, upstream: HubProcess, device: MakeDevice, world: World
) -> None:
    upstream.fault("U08", path=WEIGHTS)
    got = device(mirror.url).file(WEIGHTS)
    assert _digest(got.folder) == _right(world)
    assert "resume" not in got.stderr
    first, second = upstream.requests(host="cdn", method="GET", path=WEIGHTS)
    assert "range" not in first.headers
    assert second.headers["range"].startswith("bytes=")


@every_client
def test_a35_a_mirror_that_is_killed_half_way_serves_no_half_file(
    mirror: MirrorProcess, upstream: HubProcess, device: MakeDevice, world: World
) -> None:
    upstream.hold(WEIGHTS, at=2_500_000)
    machine = device(mirror.url)
    machine.start(("hf_hub_download", {"repo_id": "acme/tiny", "filename": WEIGHTS}))
    until(
        "half of the file is in the spool",
        lambda: any(fill["done"] > 1_000_000 for fill in mirror.status()["fills"]),
        timeout_s=30,
    )
    mirror.kill()
    machine.end()
    assert _right(world) not in mirror.blobs()
    upstream.release()
    mirror.start()
    again = machine.file(WEIGHTS)
    if again.error:  # 0.x gives up on what it held when the connection broke, and asks once more
        again = machine.file(WEIGHTS)
    assert _digest(again.folder) == _right(world)
    other = device(mirror.url).file(WEIGHTS)
    assert _digest(other.folder) == _right(world)
    assert _right(world) in mirror.blobs()


@only("hub-2.4.0", "hub-0.36.2")
def test_a16_eight_devices_at_once_are_one_download(
    mirror: MirrorProcess, upstream: HubProcess, device: MakeDevice, world: World
) -> None:
    upstream.set(bandwidth=1_000_000)  # three seconds, in which all of them ask
    call: Call = ("hf_hub_download", {"repo_id": "acme/tiny", "filename": WEIGHTS})
    running = [device(mirror.url).start(call) for _ in range(8)]
    for one in running:
        assert _digest(one.outcome().folder) == _right(world)
    assert upstream.cdn_gets(WEIGHTS) == 1


@only("hub-2.4.0", "hub-0.36.2")
def test_a39_an_upstream_that_behaves_like_hf_mirror(
    start_mirror: MakeMirror, device: MakeDevice, world: World
) -> None:
    with HubProcess(Settings(mirror=True, link_origin="https://huggingface.co")) as hub:
        mirror = start_mirror(
            "acme/tiny@main", "acme/many@main", upstream_url=hub.mirror_url,
            redirect_hosts="127.0.0.1, 127.0.0.2",
        )  # fmt: skip
        got = device(mirror.url).start(
            ("snapshot_download", {"repo_id": "acme/tiny"}),
            ("list_repo_files", {"repo_id": "acme/many"}),
        )
        tiny, many = got.outcomes()
    assert digests(tiny.folder) == truth(world.repo("acme/tiny").at("main"))
    assert isinstance(many.value, list)
    assert len(many.value) == 2500


def test_a_mirror_that_is_stopped_finishes_what_it_sends(
    mirror: MirrorProcess, upstream: HubProcess, world: World
) -> None:
    upstream.hold(WEIGHTS, at=1_000_000)
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(Answer, f"{mirror.url}/acme/tiny/resolve/main/{WEIGHTS}")
        upstream.wait(host="cdn", path=WEIGHTS, sent=1_000_000, timeout_s=30)
        stopped = pool.submit(mirror.stop)  # it insists on exit status 0
        until("the mirror stops", lambda: "stopping" in mirror.log)
        upstream.release()
        assert hashlib.sha256(answer.result().body).hexdigest() == _right(world)
        stopped.result()


def _right(world: World) -> str:
    return world.repo("acme/tiny").at("main").files[WEIGHTS].digest.hex


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
