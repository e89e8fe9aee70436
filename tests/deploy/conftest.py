"""One upstream, one mirror, and each sample proxy in front of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.fronts import FRONTS, Front
from tests.e2e.mirrors import MirrorProcess
from tests.fakes.content import Content
from tests.fakes.hub_process import HubProcess
from tests.fakes.world import lfs

BIG = 8 * 1024 * 1024 + 5  # bytes
ACCEL = "/-/accel/"  # as deploy/nginx.conf has it
COLD = ("streamed", "wrong", "crowd", "handed")
TINY = (
    "acme/tiny@main",
    "{repo: acme/tiny, revision: feature/x, notice: Only for research.}",
    "acme/tiny@refs/pr/1",
)


def cold(what: str, front: Front) -> tuple[str, Content]:
    """A repository whose one large file nobody but this test and front asks for."""
    name = f"acme/{what}-{front.name}"
    return name, Content(name, BIG)


def per_address(mirror: MirrorProcess, most: int) -> None:
    """How many connections one address may have, from its next start on."""
    with mirror.config.open("a") as config:
        config.write(f"max_connections_per_address: {most}\n")


@pytest.fixture(scope="session")
def upstream() -> Iterator[HubProcess]:
    with HubProcess() as hub:
        for front in FRONTS:
            for what in COLD:
                name = f"acme/{what}-{front.name}"
                hub.commit(name, {"model.safetensors": lfs(Content(name, BIG))})
        yield hub


@pytest.fixture(scope="session")
def mirror(
    upstream: HubProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MirrorProcess]:
    """With the settings that the samples ask for."""
    big = [f"acme/{what}-{front.name}@main" for front in FRONTS for what in COLD]
    mirror = MirrorProcess(tmp_path_factory.mktemp("mirror"), upstream.url, (*TINY, *big))
    per_address(mirror, 4096)
    with mirror.config.open("a") as config:
        config.write(f"accel: {ACCEL}\ncors: true\n")
    mirror.lock_all()
    mirror.start()
    try:
        yield mirror
    finally:
        mirror.stop()


@pytest.fixture(scope="session", params=FRONTS, ids=lambda kind: kind.name)
def front(
    request: pytest.FixtureRequest, mirror: MirrorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    kind: type[Front] = request.param
    with kind(tmp_path_factory.mktemp(kind.name), mirror.url, mirror.data) as front:
        yield front


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def secure(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)
