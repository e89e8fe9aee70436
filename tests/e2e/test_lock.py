"""The lock: made twice it is the same, anyone can check it, and nothing moves what it holds."""

from __future__ import annotations

import hashlib
import json
import subprocess

from tests.e2e.conftest import EVERYTHING, MakeDevice, MakeMirror
from tests.e2e.device import Call, digests, truth
from tests.e2e.marks import E2E, every_client, only
from tests.e2e.mirrors import MirrorProcess
from tests.fakes.content import Content
from tests.fakes.hub_process import HubProcess
from tests.fakes.rawclient import Answer
from tests.fakes.world import World, lfs, regular

pytestmark = E2E


def test_locking_twice_gives_the_same_bytes(start_mirror: MakeMirror, upstream: HubProcess) -> None:
    mirror = start_mirror(*EVERYTHING[:-1])
    mirror.stop()
    first = mirror.lock.read_bytes()
    mirror.lock_all()
    assert mirror.lock.read_bytes() == first
    mirror.lock.unlink()
    mirror.lock_all()
    assert mirror.lock.read_bytes() == first
    upstream.commit("acme/tiny", {"config.json": regular("{}\n")})
    mirror.lock_all()
    assert mirror.lock.read_bytes() == first


@only("hub-2.4.0")
def test_sha256sum_accepts_a_downloaded_folder(site: MirrorProcess, device: MakeDevice) -> None:
    machine = device(site.url)
    folder = machine.snapshot(revision="v1.0", local_dir=str(machine.home / "d")).folder
    sums = Answer(f"{site.url}/-/sums/acme/tiny@v1.0").body
    (folder / "SHA256SUMS").write_bytes(sums)
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(digests(folder)) - 1
    lock = json.loads(site.lock.read_text())
    fingerprint = lock["pins"]["acme/tiny@v1.0"]["fingerprint"]
    assert fingerprint == f"sha256:{hashlib.sha256(sums).hexdigest()}"
    assert site.pair("acme/tiny@v1.0")["fingerprint"] == fingerprint


@every_client
def test_a09_what_moves_upstream_does_not_move_here(
    mirror: MirrorProcess, upstream: HubProcess, device: MakeDevice, world: World
) -> None:
    locked = world.repo("acme/tiny")
    for ref in ("main", "v1.0"):
        moved = upstream.commit(
            "acme/tiny",
            {
                "config.json": regular('{"moved": true}\n'),
                "model.safetensors": lfs(Content(f"moved {ref}", 50_000)),
                "new.txt": regular("new\n"),
            },
            branch=f"moved-{ref}", parent=ref,
        )  # fmt: skip
        upstream.move("acme/tiny", ref, moved)
    url = f"{mirror.url}/acme/tiny/resolve/main/model.safetensors"
    calls: list[Call] = [
        ("snapshot_download", {"repo_id": "acme/tiny"}),
        ("snapshot_download", {"repo_id": "acme/tiny", "revision": "v1.0"}),
        ("get_hf_file_metadata", {"url": url}),
    ]
    main, tag, head = device(mirror.url).start(*calls).outcomes()
    assert digests(main.folder) == truth(locked.at("main"))
    assert digests(tag.folder) == truth(locked.at("v1.0"))
    weights = locked.at("main").files["model.safetensors"]
    assert isinstance(head.value, dict), head.trace
    said = [head.value[key] for key in ("commit_hash", "etag", "size")]
    assert said == [locked.at("main").sha, weights.etag, weights.size]
    got = Answer(url)
    assert got.headers["x-repo-commit"] == locked.at("main").sha
    assert hashlib.sha256(got.body).hexdigest() == weights.etag


def test_a_moved_tag_is_reported_and_followed_only_when_told(
    mirror: MirrorProcess, upstream: HubProcess, world: World
) -> None:
    pair = "acme/tiny@v1.0"
    upstream.fault("U36")
    check = mirror.command("lock", "--check")
    assert check.status == 1
    assert f"drifted   {pair}" in check.stdout
    assert mirror.pair(pair)["commit"] == world.repo("acme/tiny").at("v1.0").sha
    update = mirror.command("lock", "--update", pair)
    assert update.status == 0, update.stderr
    commit = upstream.sha("acme/tiny", "v1.0")
    mirror.wait_until(lambda: mirror.pair(pair)["commit"] == commit)
