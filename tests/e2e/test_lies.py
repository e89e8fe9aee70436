"""An upstream that sends wrong bytes. The client compares sizes and never digests, so the mirror
has to see to it that nobody ever completes a file with them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeDevice, MakeMirror
from tests.e2e.device import Call, Device, Outcome, until
from tests.e2e.marks import E2E, only
from tests.fakes.content import Content
from tests.fakes.faults import Fault
from tests.fakes.hub_process import HubProcess
from tests.fakes.world import lfs

pytestmark = E2E

# The client keeps what came in pieces of 10 MB: of a smaller file it holds nothing to resume from.
LARGE = Content("large", 24 << 20)
NAME = "large.bin"
CALL: Call = ("hf_hub_download", {"repo_id": "acme/large", "filename": NAME})
TRIES = 5

both = only("hub-2.4.0", "hub-0.36.2")


@pytest.fixture
def large(upstream: HubProcess) -> HubProcess:
    upstream.commit("acme/large", {NAME: lfs(LARGE)})
    return upstream


def lie(hub: HubProcess, *, times: int | None = 1) -> None:
    """Every byte of the file is wrong, and there are as many as there should be."""
    hub.add_faults(Fault("other-bytes", host="cdn", method="GET", path=NAME, times=times))


def lie_and_cut(hub: HubProcess) -> None:
    """Wrong bytes as far as two pieces of the client reach, then a break; after it, the truth."""
    hub.add_faults(
        Fault("other-bytes", host="cdn", method="GET", path=NAME),
        Fault("cut", {"at": 22 << 20}, host="cdn", method="GET", path=NAME),
    )


def tries(machine: Device) -> list[Outcome]:
    """What a person does: call again until it works."""
    outcomes = []
    for _ in range(TRIES):
        outcomes.append(machine.start(CALL).outcome())
        if not outcomes[-1].error:
            break
    return outcomes


def is_right(file: Path) -> bool:
    return hashlib.sha256(file.read_bytes()).hexdigest() == LARGE.sha256()


@both
@pytest.mark.parametrize("upstream_lies", [lie, lie_and_cut])
def test_a18_a_client_never_believes_wrong_bytes(
    start_mirror: MakeMirror, large: HubProcess, device: MakeDevice, upstream_lies: object
) -> None:
    mirror = start_mirror("acme/large@main")
    assert callable(upstream_lies)
    upstream_lies(large)
    got = tries(device(mirror.url))
    assert is_right(got[-1].folder), mirror.log
    assert "wrong bytes" in mirror.log
    assert mirror.blobs() == {LARGE.sha256()}


@both
def test_a18_an_upstream_that_always_lies_never_wins(
    start_mirror: MakeMirror, large: HubProcess, device: MakeDevice
) -> None:
    mirror = start_mirror("acme/large@main")
    lie(large, times=None)
    machine = device(mirror.url)
    for _ in range(2):
        assert machine.start(CALL).outcome().error
    assert not mirror.blobs()
    assert not list(machine.hf_home.glob(f"hub/**/snapshots/*/{NAME}"))


@both
def test_a18_who_was_misled_is_remembered_by_a_mirror_that_was_killed(
    start_mirror: MakeMirror, large: HubProcess, device: MakeDevice
) -> None:
    mirror = start_mirror("acme/large@main")
    lie(large)
    large.hold(NAME, at=23 << 20)
    machine = device(mirror.url)
    running = machine.start(CALL)
    until("the client holds wrong bytes", lambda: _held(machine) >= 20_000_000, timeout_s=30)
    mirror.kill()
    large.release()
    mirror.start()
    running.outcome()
    assert is_right(tries(machine)[-1].folder), mirror.log


@both
@pytest.mark.parametrize("upstream_lies", [lie, lie_and_cut])
def test_without_the_rule_for_the_misled_a_client_believes_wrong_bytes(
    start_mirror: MakeMirror, large: HubProcess, device: MakeDevice, upstream_lies: object
) -> None:
    """What holds the tests above up: they can see the difference."""
    mirror = start_mirror("acme/large@main", module="tests.e2e.without_misled")
    assert callable(upstream_lies)
    upstream_lies(large)
    got = tries(device(mirror.url))
    assert not is_right(got[-1].folder)


def _held(machine: Device) -> int:
    """Bytes of the file that the client has written, finished or not."""
    return sum(file.stat().st_size for file in machine.hf_home.glob("hub/**/blobs/*.incomplete"))
