"""aria2c, wget, curl, and the script that many people download with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.e2e import tools
from tests.e2e.conftest import MakeMirror
from tests.e2e.device import digests, truth
from tests.e2e.marks import ARIA2, CURL, E2E, HFD, WGET
from tests.e2e.mirrors import MirrorProcess
from tests.fakes.content import Content
from tests.fakes.hub_process import HubProcess
from tests.fakes.world import World, lfs

pytestmark = [*E2E, pytest.mark.usefixtures("programs")]

ARIA = ("aria2c", "--console-log-level=warn", "--file-allocation=none", "--no-conf",
        "-x", "4", "-s", "4", "-k", "1M", "-c")  # fmt: skip


@pytest.mark.case("A31", client=ARIA2)
@pytest.mark.parametrize("mib", [8, 24])
def test_four_connections_to_a_cold_file_are_one_transfer(
    start_mirror: MakeMirror, upstream: HubProcess, tmp_path: Path, mib: int
) -> None:
    content = Content(f"aria {mib}", mib << 20)
    upstream.commit("acme/tiny", {"large.bin": lfs(content)})
    mirror = start_mirror("acme/tiny@main")
    upstream.reset()
    # The larger one takes longer than we let anyone wait for a first byte.
    upstream.set(bandwidth=1_800_000 if mib > 8 else 4_000_000)
    url = f"{mirror.url}/acme/tiny/resolve/main/large.bin"
    done = tools.run(*ARIA, url, home=tmp_path)
    assert done.status == 0, done.stdout + done.stderr
    assert sha256(tmp_path / "large.bin") == content.sha256()
    assert upstream.cdn_bytes == content.size


@pytest.mark.case("A21", client=ARIA2)
def test_aria2c_takes_an_empty_file(site: MirrorProcess, tmp_path: Path) -> None:
    done = tools.run(*ARIA, f"{site.url}/acme/tiny/resolve/main/empty.txt", home=tmp_path)
    assert done.status == 0, done.stdout + done.stderr
    assert (tmp_path / "empty.txt").read_bytes() == b""


@pytest.mark.case("A21", "A32", client=WGET)
def test_wget_goes_on_and_leaves_what_is_complete(
    site: MirrorProcess, tmp_path: Path, world: World
) -> None:
    content = world.repo("acme/tiny").at("main").files["model.safetensors"].content
    file = tmp_path / "model.safetensors"
    file.write_bytes(content.read(0, 1_000_000))
    url = f"{site.url}/acme/tiny/resolve/main/model.safetensors"
    for _ in range(2):  # then it is complete, and the answer is 416
        done = tools.run("wget", "-nv", "-c", url, home=tmp_path)
        assert done.status == 0, done.stderr
        assert sha256(file) == content.sha256()
    for _ in range(2):
        empty = f"{site.url}/acme/tiny/resolve/main/empty.txt"
        done = tools.run("wget", "-nv", "-c", empty, home=tmp_path)
        assert done.status == 0, done.stderr
        assert (tmp_path / "empty.txt").read_bytes() == b""


@pytest.mark.case("A32", client=CURL)
def test_curl_goes_on_where_it_stopped(site: MirrorProcess, tmp_path: Path, world: World) -> None:
    content = world.repo("acme/tiny").at("main").files["model.safetensors"].content
    file = tmp_path / "model.safetensors"
    file.write_bytes(content.read(0, 1_000_000))
    url = f"{site.url}/acme/tiny/resolve/main/model.safetensors"
    done = tools.run("curl", "-sSfL", "-C", "-", "-O", url, home=tmp_path)
    assert done.status == 0, done.stderr
    assert sha256(file) == content.sha256()


@pytest.mark.case("A31", client=HFD)
@pytest.mark.parametrize("tool", ["aria2c", "wget"])
def test_the_flow_of_hfd(
    start_mirror: MakeMirror, upstream: HubProcess, world: World, tmp_path: Path, tool: str
) -> None:
    """Without jq: names are found by grep in the repository's info, and fetched by name."""
    mirror = start_mirror("acme/tiny@main", '{repo: solo, revision: main, exclude: ["*#*"]}')
    info = tools.run("curl", "-sSfL", f"{mirror.url}/api/models/solo/revision/main", home=tmp_path)
    assert info.status == 0, info.stderr
    gated = tools.run("grep", "-q", '"gated":[^f]', home=tmp_path, stdin=info.stdout)
    assert gated.status == 1  # else it asks for a login
    names = tools.run(
        "sh", "-c", """grep -o '"rfilename":"[^"]*"' | awk -F'"' '{print $4}'""",
        home=tmp_path, stdin=info.stdout,
    ).stdout.split()  # fmt: skip
    source = truth(world.repo("solo").at("main"))
    assert sorted(names) == sorted(source)
    folder = tmp_path / "solo"
    folder.mkdir()
    upstream.reset()
    for name in names:
        url = f"{mirror.url}/solo/resolve/main/{name}"
        command = [*ARIA, "-o", name, url] if tool == "aria2c" else ["wget", "-nv", "-c", url]
        done = tools.run(*command, home=folder)
        assert done.status == 0, done.stdout + done.stderr
    assert digests(folder) == source
    assert upstream.cdn_bytes == world.repo("solo").at("main").files["model.bin"].size


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
