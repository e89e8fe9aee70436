"""Editing allowlist.yaml under a running mirror."""

from __future__ import annotations

import hashlib
import signal

import pytest

from tests.e2e.conftest import TINY, MakeDevice, MakeMirror
from tests.e2e.device import digests, truth, until
from tests.e2e.marks import E2E, only
from tests.e2e.mirrors import MirrorProcess
from tests.fakes.hub_process import HubProcess
from tests.fakes.rawclient import Answer
from tests.fakes.world import World

pytestmark = E2E

WEIGHTS = "model.safetensors"
_EFFECT_S = 2.0


def _served(mirror: MirrorProcess, path: str) -> bool:
    return Answer(f"{mirror.url}{path}").status == 200


@only("hub-2.4.0", "hub-0.36.2")
def test_an_edit_takes_effect_within_two_seconds_and_drops_no_download(
    mirror: MirrorProcess, upstream: HubProcess, device: MakeDevice, world: World
) -> None:
    upstream.hold(WEIGHTS, at=1_000_000)
    running = device(mirror.url).start(
        ("hf_hub_download", {"repo_id": "acme/tiny", "filename": WEIGHTS})
    )
    upstream.wait(host="cdn", path=WEIGHTS, sent=1_000_000, timeout_s=30)
    mirror.allow("solo@main")  # and acme/tiny no more
    gone = mirror.wait_until(lambda: not _served(mirror, "/api/models/acme/tiny"))
    there = mirror.wait_until(lambda: _served(mirror, "/api/models/solo"))
    assert gone + there < _EFFECT_S
    upstream.release()
    weights = world.repo("acme/tiny").at("main").files[WEIGHTS]
    content = running.outcome().folder.read_bytes()
    assert hashlib.sha256(content).hexdigest() == weights.digest.hex
    solo = device(mirror.url).snapshot("solo")
    assert digests(solo.folder) == truth(world.repo("solo").at("main"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("allow:\n  - acme/tiny@main\n  - acme tiny\n", "allowlist.yaml:3: "),
        ("allow:\n  - acme/tiny@main\n  - acme/tiny@main\n", "allowlist.yaml:3: "),
        ("allow:\n  - acme/tiny@main\n - solo@main\n", "allowlist.yaml:3: "),
        ("alow:\n  - acme/tiny@main\n", "allowlist.yaml:1: "),
        ("allow:\n  - repo: acme/tiny\n    revision: main\n    no: 1\n", "allowlist.yaml:4: "),
    ],
)
def test_a_broken_edit_changes_nothing_and_says_where(
    mirror: MirrorProcess, world: World, text: str, problem: str
) -> None:
    before = mirror.status()["pairs"]
    mirror.allowlist.write_text(text)
    took = mirror.wait_until(lambda: mirror.status()["catalog_error"])
    assert took < _EFFECT_S
    said = mirror.status()
    assert problem in said["catalog_error"]
    assert said["pairs"] == before
    assert problem in mirror.log
    assert _served(mirror, "/acme/tiny/resolve/v1.0/config.json")
    assert "hubpin_catalog_stale 1.0" in Answer(f"{mirror.url}/metrics").body.decode()
    mirror.allow(*TINY, "solo@main")
    mirror.wait_until(lambda: _served(mirror, "/api/models/solo"))
    assert mirror.status()["catalog_error"] is None


def test_sighup_reads_a_list_that_lies_elsewhere(start_mirror: MakeMirror) -> None:
    mirror = start_mirror("acme/tiny@main", "solo@main")
    mirror.stop()
    elsewhere = mirror.folder / "elsewhere"
    elsewhere.mkdir()
    target = mirror.allowlist.rename(elsewhere / "list.yaml")
    mirror.allowlist.symlink_to(target)
    mirror.start()
    assert _served(mirror, "/api/models/solo")
    target.write_text("allow:\n  - acme/tiny@main\n")
    mirror.signal(signal.SIGHUP)
    took = until("solo is gone", lambda: not _served(mirror, "/api/models/solo"))
    assert took < _EFFECT_S
    assert _served(mirror, "/api/models/acme/tiny")


def test_a_lock_that_another_command_wrote_takes_effect(
    mirror: MirrorProcess, upstream: HubProcess
) -> None:
    upstream.fault("U36")
    done = mirror.command("lock", "--update", "acme/tiny@v1.0")
    assert done.status == 0, done.stderr
    commit = upstream.sha("acme/tiny", "v1.0")
    took = mirror.wait_until(lambda: mirror.pair("acme/tiny@v1.0")["commit"] == commit)
    assert took < _EFFECT_S
