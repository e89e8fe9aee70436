"""A fleet: one mirror, twenty devices, no upstream; and a site that gets its files by a bundle."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e import tools
from tests.e2e.conftest import MakeDevice
from tests.e2e.device import digests, until
from tests.e2e.marks import E2E, only
from tests.e2e.mirrors import MirrorProcess
from tests.e2e.shell_device import ShellDevice, all_ended
from tests.fakes.content import Content
from tests.fakes.hub_process import HubProcess
from tests.fakes.world import File, lfs, regular

pytestmark = E2E
VOICE = "acme/voice"
V23, V24 = f"{VOICE}@v23", f"{VOICE}@v24"
ALLOW = (f"{{repo: {VOICE}, revision: v23, serve_as: [main]}}", V24)
HALF = 10  # devices of each kind


def files(version: str) -> dict[str, File | None]:
    return {
        "config.json": regular(f'{{"version": "{version}"}}\n'),
        "tokens #1/ü?.txt": regular("the same in both\n"),
        "model.safetensors": lfs(Content(f"voice {version}", 2_000_003)),
        "vocoder.safetensors": lfs(Content("vocoder", 500_000)),  # the same in both
    }


@pytest.fixture(scope="module")
def warmed(tmp_path_factory: pytest.TempPathFactory) -> MirrorProcess:
    """A mirror that was warmed and has lost its upstream."""
    tools.ensure_programs(("curl", "dash"))
    with HubProcess() as hub:
        for version in ("v23", "v24"):
            hub.commit(VOICE, files(version))
            hub.tag(VOICE, version)
        mirror = MirrorProcess(tmp_path_factory.mktemp("warmed"), hub.url, ALLOW)
        mirror.lock_all()
        done = mirror.command("warm")
        assert done.status == 0, done.stderr
    return mirror


@pytest.fixture
def voice(warmed: MirrorProcess, tmp_path: Path) -> MirrorProcess:
    """One like it, for one test; not started."""
    mirror = MirrorProcess(tmp_path / "mirror", "http://127.0.0.1:9", ALLOW)
    shutil.copy2(warmed.lock, mirror.lock)
    shutil.copytree(warmed.data, mirror.data)
    return mirror


@only("hub-2.4.0")
def test_twenty_devices_get_what_was_locked_and_two_try_the_next_version(
    voice: MirrorProcess, device: MakeDevice, tmp_path: Path
) -> None:
    voice.start()
    try:
        _play(voice, device, tmp_path)
    finally:
        voice.stop()


def _play(mirror: MirrorProcess, device: MakeDevice, tmp_path: Path) -> None:
    pins = locked(mirror)
    v23, v24 = (str(pins[pair]["commit"]) for pair in (V23, V24))
    prints = {pins[pair]["commit"]: pins[pair]["fingerprint"] for pair in pins}

    # Twenty devices, at once: half of them with a client of the Hub, half with the script, and of
    # these one in two with a plain folder.
    stock = [device(mirror.url) for _ in range(HALF)]
    calls = [
        one.start(("snapshot_download", {"repo_id": VOICE, "revision": "v23"})) for one in stock
    ]
    shells = [
        ShellDevice.make(tmp_path / f"shell-{n}", mirror.url, address=f"127.0.0.{10 + n}")
        for n in range(HALF)
    ]
    plain = shells[::2]
    pulls = all_ended(
        [one.start(*(("--to", "voice") if one in plain else ()), V23) for one in shells]
    )
    folders = [call.outcome().folder for call in calls]
    for one, done in zip(shells, pulls, strict=True):
        assert done.status == 0, done.stderr
        assert done.stdout.strip() == prints[v23]
        folders.append(one.home / "voice/current" if one in plain else one.snapshot(VOICE, v23))
    assert [fingerprint(folder) for folder in folders] == [prints[v23]] * len(folders)

    # The stock client, told to ask nobody, finds what the script wrote, by tag and as main.
    shell = shells[1]
    reader = device(mirror.url, HF_HUB_OFFLINE="1", HF_HOME=str(shell.home / ".cache/huggingface"))
    for revision in ("v23", "main"):
        found = reader.snapshot(VOICE, revision=revision).folder
        assert found == shell.snapshot(VOICE, v23)

    # Two of them try v24, and go back.
    canary, stock_canary = plain[0], stock[0]
    assert canary.pull("--to", "voice", V24).stdout.strip() == prints[v24]
    assert fingerprint(canary.home / "voice/current") == prints[v24]
    tried = stock_canary.snapshot(VOICE, revision="v24").folder
    assert fingerprint(tried) == prints[v24]
    assert canary.pull("--to", "voice", "--back").stdout.strip() == prints[v23]
    assert stock_canary.snapshot(VOICE, revision="v23").folder == folders[0]
    assert [fingerprint(folder) for folder in folders] == [prints[v23]] * len(folders)

    # Who took what?
    old, new = (V23, v23, prints[v23]), (V24, v24, prints[v24])
    until("it is written down", lambda: taken(mirror, "127.0.0.10") == {old, new}, timeout_s=30)
    assert taken(mirror, "127.0.0.17") == {old}


def test_a_site_without_a_link_serves_what_a_bundle_brought(
    voice: MirrorProcess, tmp_path: Path
) -> None:
    before = locked(voice)
    bundle = tmp_path / "site.hubpin"
    done = voice.command("export", "-o", str(bundle))
    assert done.status == 0, done.stderr
    shutil.rmtree(voice.data)

    site = MirrorProcess(tmp_path / "site", "http://127.0.0.1:9", ())
    site.allowlist.write_text("allow: []\n")
    with site.config.open("a") as config:
        config.write("offline: true\n")
    done = site.command("import", str(bundle), "--accept-pins", "--allow")
    assert done.status == 0, done.stderr
    after = locked(site)
    assert {pair: pin["fingerprint"] for pair, pin in after.items()} == {
        pair: pin["fingerprint"] for pair, pin in before.items()
    }
    site.start()
    try:
        for n, pair in enumerate((V23, V24)):
            shell = ShellDevice.make(tmp_path / f"shell-{n}", site.url)
            got = shell.pull("--to", "voice", pair)
            assert got.status == 0, got.stderr
            assert got.stdout.strip() == before[pair]["fingerprint"]
            assert fingerprint(shell.home / "voice/current") == before[pair]["fingerprint"]
    finally:
        site.stop()


def locked(mirror: MirrorProcess) -> Mapping[str, Mapping[str, str]]:
    pins: Mapping[str, Mapping[str, str]] = json.loads(mirror.lock.read_bytes())["pins"]
    return pins


def fingerprint(folder: Path) -> str:
    """Of what is on disk."""
    rows = sorted((path.encode(), digest) for path, digest in digests(folder.resolve()).items())
    sums = "".join(f"{digest}  {path.decode()}\n" for path, digest in rows)
    return "sha256:" + hashlib.sha256(sums.encode()).hexdigest()


def taken(mirror: MirrorProcess, address: str) -> set[tuple[str, str, str]]:
    """What `hubpin audit` says that a device has completely; anything else fails the test."""
    done = mirror.command("audit", "--device", address, "--since", "2020-01-01", "--json")
    assert done.status == 0, done.stderr
    rows = [row for row in map(json.loads, done.stdout.splitlines()) if "commit" in row]
    return {(row["pair"], row["commit"], row["fingerprint"]) for row in rows if row["complete"]}
