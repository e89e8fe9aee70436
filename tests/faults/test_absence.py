"""U36, U39-U41, U51, U52, U54, U55: upstreams that are gone, silent, slow, behind or closed."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.hub_server import HubServer
from tests.faults.bench import CONFIG, FILE, FILES, PARTS, REPO, SMALL, Bench
from tests.faults.client import CLEAN, RIGHT, Download
from tests.faults.mirror import ROOT, MirrorProcess, Source

ONE = (f"{REPO}@main",)


@pytest.mark.row(
    "U36", behaviour="The locked commit is served for ever; `lock --check` says it drifted."
)
def test_u36_a_tag_that_moves_moves_nothing(
    own_hub: HubServer, start: Callable[..., MirrorProcess]
) -> None:
    """The tag that was locked is moved to a commit with other bytes."""
    own_hub.tag(REPO, "v1.0")
    mirror = start(own_hub, locked=False, allow=(f"{REPO}@v1.0",))
    bench = Bench(own_hub, mirror)
    url = bench.url(FILE, revision="v1.0")
    locked = bench.ask(url, method="HEAD").header("X-Repo-Commit")
    own_hub.fault("U36", repo=REPO, ref="v1.0", path=FILE)
    moved = own_hub.sha(REPO, "v1.0")
    assert moved != locked
    download = Download(url, FILES[FILE].content)
    assert download.attempt() is RIGHT
    assert bench.ask(url, method="HEAD").header("X-Repo-Commit") == locked
    checked = mirror.command("lock", "--check")
    assert checked.returncode == 1
    assert "drifted" in checked.stdout
    assert moved[:12] in checked.stdout
    assert mirror.command("lock").returncode == 0
    assert bench.ask(url, method="HEAD").header("X-Repo-Commit") == locked
    bench.aftermath()


@pytest.mark.parametrize("blackhole", [False, True])
@pytest.mark.row(
    "U39",
    behaviour="What is held is served in less than 50 ms (median); what is not, is refused within "
    "20 s.",
)
def test_u39_what_is_held_needs_nobody(
    own_hub: HubServer, start: Callable[..., MirrorProcess], blackhole: bool
) -> None:
    """Every connection to the upstream is refused, or its packets vanish."""
    bench = Bench(own_hub, start(own_hub))
    assert bench.get(SMALL) is RIGHT
    own_hub.fault("U39", blackhole=blackhole)
    missing = bench.ask(bench.url(FILE))
    assert missing.status >= 500 or missing.status == 429
    assert missing.seconds < 20
    hits = [bench.ask(bench.url(SMALL)) for _ in range(21)]
    assert {bytes(hit.body) for hit in hits} == {CONFIG.read(0, CONFIG.size)}
    assert statistics.median(hit.seconds for hit in hits) < 0.05
    bench.aftermath()


@pytest.mark.row("U40", behaviour="Clean within 30 s; everything else is served meanwhile.")
def test_u40_silence_is_no_answer(bench: Bench) -> None:
    """The Hub accepts connections and never answers about one file."""
    bench.hub.fault("U40", path=FILE)
    download = bench.begin(FILE)
    assert bench.get(PARTS[0]) is RIGHT
    assert bench.get(SMALL) is RIGHT
    assert bench.last(SMALL).seconds < 5
    assert download.result() is CLEAN
    assert bench.last(FILE).seconds < 30


@pytest.mark.row("U41", behaviour="Right, from the second upstream.")
def test_u41_a_mirror_that_is_behind_is_passed_over(
    own_hub: HubServer, second_hub: HubServer, start: Callable[..., MirrorProcess]
) -> None:
    """The first of two upstreams does not have the commit yet."""
    own_hub.fault("U41")
    bench = Bench(own_hub, start(own_hub, second_hub))
    bench.hubs.append(second_hub)
    assert bench.get(FILE) is RIGHT
    assert bench.get(SMALL) is RIGHT
    assert second_hub.cdn_gets() == 1
    bench.aftermath()


@pytest.mark.row(
    "U51",
    behaviour="403 with X-Error-Code: GatedRepo for what is not held; what is held and shared is "
    "still served.",
)
def test_u51_a_grant_that_is_withdrawn_is_missed_for_what_is_not_held(
    own_hub: HubServer, start: Callable[..., MirrorProcess]
) -> None:
    """The repository is gated, and our access to it is withdrawn after it was locked."""
    own_hub.restrict(REPO, gated="manual")
    allow = (f"{{repo: {REPO}, revision: main, share: lan}}",)
    bench = Bench(own_hub, start(own_hub, locked=False, allow=allow))
    assert bench.get(SMALL) is RIGHT
    own_hub.fault("U51", repo=REPO)
    assert bench.get(FILE) is CLEAN
    assert bench.last().status == 403
    assert bench.last().header("X-Error-Code") == "GatedRepo"
    assert bench.ask(bench.url(SMALL)).status == 200
    own_hub.restrict(REPO, gated="manual", granted=True)
    bench.aftermath()


@pytest.mark.row("U51", behaviour="Not locked: our token would open it to everybody here.")
def test_u51_a_gated_repository_is_not_shared_by_accident(
    own_hub: HubServer, start: Callable[..., MirrorProcess]
) -> None:
    """The repository is gated, our token opens it, and the allowlist does not say `share: lan`."""
    own_hub.restrict(REPO, gated="manual")
    bench = Bench(own_hub, start(own_hub, locked=False, allow=ONE))
    got = bench.ask(bench.url(SMALL))
    assert (got.status, got.header("X-Error-Code")) == (404, "RevisionNotFound")
    assert "share: lan" in got.header("X-Error-Message")
    assert str(bench.mirror.folder) not in got.header("X-Error-Message")
    own_hub.restrict(REPO)
    bench.aftermath()


@pytest.mark.parametrize("how", ["deleted", "renamed", "private"])
@pytest.mark.row("U52", behaviour="What is held is served; what is not, is refused in words.")
def test_u52_what_is_gone_upstream_stays_here(
    own_hub: HubServer, start: Callable[..., MirrorProcess], how: str
) -> None:
    """The repository is deleted, renamed or made private after it was locked."""
    bench = Bench(own_hub, start(Source(own_hub.url, token=False)))
    assert bench.get(FILE) is RIGHT
    own_hub.fault("U52", repo=REPO, how=how)
    assert bench.ask(bench.url(FILE)).status == 200
    assert bench.ask(f"/api/models/{REPO}/revision/main").status == 200
    if how == "renamed":
        assert bench.get(SMALL) is RIGHT
    else:
        got = bench.ask(bench.url(SMALL))
        assert got.status in (403, 502)
        assert got.header("X-Error-Message")
    bench.aftermath()


@pytest.mark.row("U54", behaviour="Right, within 45 s: given up after 20 s, resumed from the next.")
def test_u54_a_drip_is_given_up(
    own_hub: HubServer, second_hub: HubServer, start: Callable[..., MirrorProcess]
) -> None:
    """The CDN sends 5 kB/s, which no read timeout ever notices."""
    own_hub.fault("U54")
    bench = Bench(own_hub, start(own_hub, second_hub))
    bench.hubs.append(second_hub)
    assert bench.get() is RIGHT
    assert bench.last().seconds < 45
    assert second_hub.requests(host="cdn")[0].headers["range"] != "bytes=0-"
    assert bench.ratio() <= 1.2
    bench.aftermath()


# The only one: a network that loses packets takes a device of the kernel and the right to a
# namespace, and nothing that a project installs brings either. As root in a container it runs.
@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="needs root and /dev/net/tun"
)
@pytest.mark.row("U55", behaviour="Right.")
def test_u55_lost_packets_are_only_slow() -> None:
    """One packet in ten is lost on the way to the upstream and back."""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "tests.faults.lossy"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "right" in done.stdout
