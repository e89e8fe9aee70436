"""A network that loses one packet in ten; runs in a network namespace of its own.

A TUN device with the address 10.9.0.1 receives whatever is sent to 10.9.0.2. Each packet comes back
with its two addresses exchanged (no checksum changes by that), so that a connection to 10.9.0.2
arrives at 10.9.0.1 as one from 10.9.0.2. Some packets do not come back.
"""

from __future__ import annotations

import fcntl
import os
import random
import struct
import subprocess
import threading

from tests.fakes.content import Content
from tests.fakes.hub_server import HubServer
from tests.fakes.settings import Settings
from tests.fakes.world import World, regular
from tests.faults.client import Download, Verdict
from tests.faults.mirror import MirrorProcess, Source

HERE, THERE = "10.9.0.1", "10.9.0.2"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000
LOST = 0.1
CONTENT = Content("lossy", 1 << 20)


class LossyLink:
    """Counts what it lost."""

    def __init__(self) -> None:
        self.lost = 0
        self._tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        request = struct.pack("16sH22x", b"lossy", _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(self._tun, _TUNSETIFF, request)
        for words in (
            "link set lo up",
            f"addr add {HERE}/24 dev lossy",
            "link set lossy up mtu 1400",
        ):
            subprocess.run(["ip", *words.split()], check=True)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        dice = random.Random(55)
        while True:
            packet = os.read(self._tun, 2000)
            if packet[0] >> 4 != 4:
                continue
            if dice.random() < LOST:
                self.lost += 1
                continue
            os.write(self._tun, packet[:12] + packet[16:20] + packet[12:16] + packet[20:])


def main() -> None:
    link = LossyLink()
    world = World()
    world.repo("acme/far").commit({"weights.bin": regular(CONTENT)})
    with HubServer(world, Settings(hub_host=HERE)) as hub:
        source = Source(hub.url.replace(HERE, THERE), token=False)
        timeouts = {"timeouts": "{connect: 10s, read: 20s}"}
        mirror = MirrorProcess([source], ["acme/far@main"], settings=timeouts)
        try:
            mirror.start()
            download = Download(f"{mirror.url}/acme/far/resolve/main/weights.bin", CONTENT)
            verdicts: list[Verdict] = []
            while not download.complete and len(verdicts) < 10:
                verdicts.append(download.attempt())
            print(verdicts[-1], f"after {len(verdicts)} answers, {link.lost} packets were lost")
            assert link.lost > 20
        finally:
            mirror.close()


if __name__ == "__main__":
    main()
