"""What tests of the hub upstream share: two servers that misbehave, and a clock."""

from __future__ import annotations

from collections.abc import Callable

from proxy.upstream.hub import HubUpstream
from tests.upstream.contract import FILES, REPO, located, world

COMMIT = world().repos[REPO].at().sha
MODEL = located("sub/deep/model.safetensors")
DATA = FILES[MODEL.path].content.read(0, MODEL.size)
RESOLVE = f"/acme/tiny/resolve/{COMMIT}/{MODEL.path}"
INFO = "/api/models/acme/tiny/revision/main"
REFS = "/api/models/acme/tiny/refs"
TREE = f"/api/models/acme/tiny/tree/{COMMIT}"
TOKEN = "hf_canary"


class FakeTime:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


Make = Callable[..., HubUpstream]
