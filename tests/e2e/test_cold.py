"""A large file that the mirror has to fetch while a device waits for it."""

from __future__ import annotations

import hashlib

from tests.e2e.conftest import MakeDevice, MakeMirror
from tests.e2e.device import until
from tests.e2e.marks import E2E, only
from tests.fakes.content import Content
from tests.fakes.hub_process import HubProcess
from tests.fakes.world import lfs

pytestmark = E2E

# 5 GB would take as long as CI does altogether; the client's timeouts are between bytes, so what
# counts is that the file takes longer than one of them (10 s).
LARGE = Content("cold", 260_000_000)
NAME = "cold.safetensors"
_LINE = 20_000_000  # bytes a second, of the four connections that the mirror opens
_FIRST_BYTE_S = 10.0


@only("hub-0.36.2")
def test_a15_a_large_cold_file_over_a_slow_line(
    start_mirror: MakeMirror, upstream: HubProcess, device: MakeDevice
) -> None:
    upstream.commit("acme/large", {NAME: lfs(LARGE)})
    mirror = start_mirror("acme/large@main")
    upstream.set(bandwidth=_LINE / 4)
    machine = device(mirror.url)
    running = machine.start(("hf_hub_download", {"repo_id": "acme/large", "filename": NAME}))
    until(
        "the device has the first bytes",
        lambda: any(one.stat().st_size for one in machine.hf_home.glob("hub/**/*.incomplete")),
        timeout_s=_FIRST_BYTE_S,
    )
    assert not mirror.blobs()
    got = running.outcome()
    with got.folder.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == LARGE.sha256()
    assert got.seconds > LARGE.size / _LINE - 1  # or the line was not slow
    assert upstream.cdn_bytes < 1.02 * LARGE.size  # each byte once, but for what a cut wastes
