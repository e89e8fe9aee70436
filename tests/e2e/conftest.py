"""Real clients, a mirror process and an upstream process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import clients, tools
from tests.e2e.cases import (  # noqa: F401  # hooks of pytest
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_terminal_summary,
)
from tests.e2e.device import Device
from tests.e2e.mirrors import MirrorProcess
from tests.e2e.wiretap import Canary, Wiretap
from tests.fakes.acme import acme_world
from tests.fakes.hub_process import HubProcess
from tests.fakes.world import World

TINY = ("acme/tiny@main", "acme/tiny@v1.0", "acme/tiny@feature/x", "acme/tiny@refs/pr/1")
EVERYTHING = (
    *TINY, "datasets/acme/csvdata@main", "datasets/acme/nocard@main", "spaces/acme/app@main",
    "solo@main", "acme/many@main",
)  # fmt: skip

MakeDevice = Callable[..., Device]
MakeMirror = Callable[..., MirrorProcess]
Tap = Callable[[str], Wiretap]


@pytest.fixture(scope="session")
def world() -> World:
    """What every upstream starts with; ids and bytes are the same in each process."""
    return acme_world()


@pytest.fixture(scope="session")
def environments(request: pytest.FixtureRequest) -> None:
    """Every client that some selected test needs, made side by side."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    clients.ensure(call.params["client"] for call in calls if call and "client" in call.params)


@pytest.fixture(scope="session")
def programs() -> None:
    """Every program of the system that some client is."""
    tools.ensure_programs()


@pytest.fixture(scope="session")
def node_packages() -> None:
    """@huggingface/hub and transformers.js."""
    tools.ensure_node_packages()


@pytest.fixture(scope="session")
def canary() -> Iterator[Canary]:
    with Canary() as canary:
        yield canary


@pytest.fixture
def client(request: pytest.FixtureRequest, environments: None) -> str:
    """The client version of this run; tests are parametrized with it."""
    return str(request.param)


@pytest.fixture
def device(client: str, canary: Canary, tmp_path: Path) -> Iterator[MakeDevice]:
    """`device(endpoint, HF_TOKEN=…)`: a new one with nothing on it.

    Whatever it asks of another host than this one goes to the canary, and fails the test.
    """
    made: list[Device] = []
    canary.tried.clear()

    def make(endpoint: str, **variables: str) -> Device:
        home = tmp_path / f"device-{len(made)}"
        home.mkdir()
        proxies = {"HTTP_PROXY": canary.url, "HTTPS_PROXY": canary.url, "NO_PROXY": "127.0.0.1"}
        lower = {name.lower(): value for name, value in proxies.items()}
        made.append(Device(client, endpoint, home, {**proxies, **lower, **variables}))
        return made[-1]

    yield make
    for one in made:
        one.end()
    assert not canary.tried


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """An upstream that nobody meddles with."""
    with HubProcess() as hub:
        yield hub


@pytest.fixture(scope="session")
def site(honest: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MirrorProcess]:
    """A mirror of everything, for tests that leave it as it is."""
    mirror = MirrorProcess(tmp_path_factory.mktemp("site"), honest.url, EVERYTHING)
    mirror.lock_all()
    mirror.start()
    try:
        yield mirror
    finally:
        mirror.stop()


@pytest.fixture
def upstream() -> Iterator[HubProcess]:
    """An upstream of one's own, to break."""
    with HubProcess() as hub:
        yield hub


@pytest.fixture
def start_mirror(tmp_path: Path, upstream: HubProcess) -> Iterator[MakeMirror]:
    """`start_mirror(*allow, …)`: a running mirror of one's own, everything locked.

    Further arguments are `MirrorProcess`'s, and `upstream_url` for another upstream.
    """
    with ExitStack() as stack:
        count = 0

        def make(*allow: str, upstream_url: str = "", **options: Any) -> MirrorProcess:
            nonlocal count
            count += 1
            folder = tmp_path / f"mirror-{count}"
            mirror = MirrorProcess(folder, upstream_url or upstream.url, allow or TINY, **options)
            stack.callback(mirror.stop)
            mirror.start()
            mirror.wait_locked()
            return mirror

        yield make


@pytest.fixture
def mirror(start_mirror: MakeMirror) -> MirrorProcess:
    """A mirror of one's own that serves acme/tiny."""
    return start_mirror()


@pytest.fixture
def tap() -> Iterator[Tap]:
    """`tap(url)`: an address for devices whose traffic is to be seen."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(Wiretap(url))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its mirrors wrote."""
    report = yield
    if report.failed:
        for folder in _folders(item):
            for log in sorted(folder.glob("**/mirror.log")):
                report.sections.append((str(log), log.read_text(errors="replace")[-20_000:]))
    return report


def _folders(item: pytest.Item) -> Iterator[Path]:
    for value in getattr(item, "funcargs", {}).values():
        if isinstance(value, MirrorProcess):
            yield value.folder
        elif isinstance(value, Path):
            yield value
