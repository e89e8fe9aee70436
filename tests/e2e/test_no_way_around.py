"""A device that can reach the mirror and nothing else: every client completes, and none tries more.

The device is a network namespace that has loopback and one address, at which the mirror is heard,
and no route to anywhere. Nothing of this host's network is touched. strace notes whom the processes
try to reach.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import clients, tools
from tests.e2e.conftest import TINY, MakeMirror
from tests.e2e.device import digests, truth
from tests.e2e.marks import ARIA2, CURL, E2E, GIT, JS_HUB, TRANSFORMERS_JS, WGET
from tests.e2e.test_javascript import tokenizer
from tests.e2e.wiretap import Wiretap
from tests.fakes.hub_process import HubProcess
from tests.fakes.world import World, regular

pytestmark = [*E2E, pytest.mark.usefixtures("programs")]

_MIRROR = "203.0.113.1"  # for documentation (RFC 5737), and only on the island
_CLONE_NEWNET = 0x40000000  # sched.h
_HUB = "hub-2.4.0"
_SNAPSHOT = "import huggingface_hub as h; print(h.snapshot_download('acme/tiny'))"
_CONNECT = re.compile(r"sin6?_port=htons\((\d+)\).*?(?:inet_addr\(|AF_INET6?, )\"([^\"]+)\"")


@dataclass(frozen=True, slots=True)
class Island:
    """A place from which nothing but the mirror can be reached."""

    name: str
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://{_MIRROR}:{self.port}"

    @property
    def prefix(self) -> tuple[str, ...]:
        """What is put before a command to run it there, under observation."""
        return (
            "ip", "netns", "exec", self.name,
            "strace", "-f", "-qq", "-e", "trace=connect,sendto", "-e", "signal=none",
            "-A", "-o", str(self.notes),
        )  # fmt: skip

    @property
    def notes(self) -> Path:
        return self.folder / "strace"

    def others(self) -> set[tuple[str, str]]:
        """Addresses and ports other than the mirror's that somebody tried."""
        found = {(m[2], m[1]) for m in _CONNECT.finditer(self.notes.read_text(errors="replace"))}
        assert (_MIRROR, str(self.port)) in found
        return found - {(_MIRROR, str(self.port))}


class Ferry(Wiretap):
    """Listens on the island and passes bytes on to the mirror, which stays where it is.

    A socket belongs to the namespace in which it was made, whoever uses it then.
    """

    def __init__(self, namespace: str, mirror_url: str) -> None:
        super().__init__(mirror_url)
        made: list[socket.socket] = []
        thread = threading.Thread(target=lambda: made.append(_listen_in(namespace)))
        thread.start()
        thread.join()
        self._socket.close()
        (self._socket,) = made

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])


def _listen_in(namespace: str) -> socket.socket:
    """In a thread of its own: it does not come back from there. Raises: OSError."""
    with Path(f"/run/netns/{namespace}").open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    return socket.create_server((_MIRROR, 0))


@pytest.fixture
def island(upstream: HubProcess, start_mirror: MakeMirror, tmp_path: Path) -> Iterator[Island]:
    assert os.geteuid() == 0, "this needs root: network namespaces"
    upstream.commit("acme/words", {name: regular(text) for name, text in tokenizer().items()})
    mirror = start_mirror(*TINY, "acme/words@main")
    name = f"hubpin-{os.getpid()}"

    def ip(*arguments: str) -> None:
        done = tools.run("ip", *arguments, home=tmp_path)
        assert done.status == 0, done.stderr

    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "addr", "add", f"{_MIRROR}/32", "dev", "lo")
        with Ferry(name, mirror.url) as ferry:
            yield Island(name, ferry.port, tmp_path)
    finally:
        ip("netns", "del", name)


@pytest.mark.case("A01", client="huggingface_hub 2.4.0 + hf-xet")
@pytest.mark.parametrize("client", [_HUB], indirect=True)
def test_the_python_client(island: Island, client: str, tmp_path: Path, world: World) -> None:
    python = clients.program(client)
    assert tools.run(python, "-c", "import hf_xet", home=tmp_path).status == 0
    done = tools.run(
        python, "-c", _SNAPSHOT, home=tmp_path, prefix=island.prefix,
        variables={"HF_ENDPOINT": island.url},
    )  # fmt: skip
    assert done.status == 0, done.stderr
    assert digests(Path(done.stdout.strip())) == truth(world.repo("acme/tiny").at("main"))
    assert island.others() == set()


@pytest.mark.case("A22", client=JS_HUB)
@pytest.mark.case("A23", client=TRANSFORMERS_JS)
@pytest.mark.usefixtures("node_packages")
def test_the_javascript_clients(island: Island, tmp_path: Path, world: World) -> None:
    given = {"hubUrl": island.url}
    listed, weights, tokens = tools.node(
        tmp_path,
        ("listFiles", {**given, "repo": "acme/tiny", "recursive": True}),
        ("downloadFile", {**given, "repo": "acme/tiny", "path": "model.safetensors"}),
        ("tokenize", {**given, "repo": "acme/words", "text": "hello"}),
        prefix=island.prefix,
    )
    file = world.repo("acme/tiny").at("main").files["model.safetensors"]
    assert isinstance(listed, list)
    assert len(listed) == len(world.repo("acme/tiny").at("main").files)
    assert weights == {"size": file.size, "sha256": file.digest.hex}
    assert tokens == [1]
    assert island.others() == set()


@pytest.mark.case("A31", client=ARIA2)
@pytest.mark.case("A32", client=WGET)
@pytest.mark.case("A32", client=CURL)
@pytest.mark.case("A33", client=GIT)
@pytest.mark.parametrize("program", ["aria2c", "wget", "curl", "git"])
def test_the_programs(island: Island, program: str, tmp_path: Path, world: World) -> None:
    url = f"{island.url}/acme/tiny/resolve/main/model.safetensors"
    tools.run("git", "lfs", "install", home=tmp_path)
    command = {
        "aria2c": ("aria2c", "-q", "--no-conf", "-x4", "-s4", "-k1M", url),
        "wget": ("wget", "-nv", url),
        "curl": ("curl", "-sSfLO", url),
        "git": ("git", "clone", "-q", f"{island.url}/acme/tiny", "."),
    }[program]
    home = tmp_path / "got"
    home.mkdir()
    done = tools.run(*command, home=home, prefix=island.prefix, variables={"HOME": str(tmp_path)})
    assert done.status == 0, done.stdout + done.stderr
    source = world.repo("acme/tiny").at("main").files["model.safetensors"].digest.hex
    assert digests(home)["model.safetensors"] == source
    assert island.others() == set()


def test_from_there_nothing_else_can_be_reached(island: Island, tmp_path: Path) -> None:
    """The test of the test: another address of this very host is out of reach, and is noted."""
    attempt = "import socket; socket.create_connection(('198.51.100.7', 80), 2)"
    done = tools.run(sys.executable, "-c", attempt, home=tmp_path, prefix=island.prefix)
    assert done.status != 0
    assert "unreachable" in done.stderr
    assert "198.51.100.7" in island.notes.read_text()
