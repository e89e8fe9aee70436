"""Files that are larger than clients want to fetch over HTTP."""

from __future__ import annotations

from tests.e2e.conftest import MakeDevice, MakeMirror, Tap
from tests.e2e.device import digests, truth
from tests.e2e.marks import E2E, only
from tests.fakes.world import World

pytestmark = E2E


@only("hub-2.4.0", "hub-1.33.0")
def test_a_file_whose_head_tells_no_size_is_fetched(
    start_mirror: MakeMirror, device: MakeDevice, tap: Tap, world: World
) -> None:
    wire = tap(start_mirror("acme/tiny@main", module="tests.e2e.with_small_limit").url)
    machine = device(wire.url)
    file = world.repo("acme/tiny").at("main").files["model.safetensors"]
    got = machine.file("model.safetensors")
    assert got.folder.stat().st_size == file.size
    assert b"X-Linked-Size: %d" % file.size in wire.answered  # of the GET
    assert digests(machine.snapshot().folder) == truth(world.repo("acme/tiny").at("main"))
