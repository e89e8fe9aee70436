"""Clients that do not run here, request for request as their sources have it."""

from __future__ import annotations

import hashlib
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.e2e.conftest import MakeMirror
from tests.e2e.marks import E2E, LLAMA_CPP, OLLAMA, RUST_05, RUST_11, TGI
from tests.e2e.mirrors import CONTACT, MirrorProcess
from tests.fakes.content import Content
from tests.fakes.hub_process import HubProcess
from tests.fakes.rawclient import Answer
from tests.fakes.settings import Settings
from tests.fakes.world import World, lfs

pytestmark = E2E

_GGUF = {
    "tiny-Q4_K_M.gguf": Content("q4", 2_000_000),
    "tiny-Q8_0.gguf": Content("q8", 6_000_000),
    "mmproj-tiny-F16.gguf": Content("eyes", 50_000),
    "BF16/tiny-BF16-00001-of-00002.gguf": Content("one", 40_000),
    "BF16/tiny-BF16-00002-of-00002.gguf": Content("two", 30_000),
}


@pytest.fixture
def gguf(start_mirror: MakeMirror, upstream: HubProcess) -> MirrorProcess:
    upstream.commit("acme/gguf", {path: lfs(content) for path, content in _GGUF.items()})
    mirror = start_mirror("acme/gguf@main", "acme/tiny@main")
    upstream.reset()
    return mirror


@pytest.mark.case("A29", client=LLAMA_CPP)
def test_a29_llama_cpp_hf(gguf: MirrorProcess, upstream: HubProcess) -> None:
    """common/hf-cache.cpp: refs, the tree of a commit, and then HEAD and GET of each file."""
    agent = {"User-Agent": "llama-cpp/b9999", "Accept": "application/json"}
    refs: Any = Answer(f"{gguf.url}/api/models/acme/gguf/refs", headers=agent).json
    (main,) = [one for one in refs["branches"] if one["name"] == "main"]
    commit = main["targetCommit"]
    tree: Any = Answer(
        f"{gguf.url}/api/models/acme/gguf/tree/{commit}?recursive=true", headers=agent
    ).json
    files = {one["path"]: one for one in tree if one["type"] == "file"}
    assert files.keys() == _GGUF.keys()
    for path in ("tiny-Q4_K_M.gguf", "mmproj-tiny-F16.gguf"):
        url = f"{gguf.url}/acme/gguf/resolve/{commit}/{path}"
        head = Answer(url, method="HEAD", headers=agent)
        assert head.status == 200
        assert head.headers["accept-ranges"] == "bytes"
        assert int(head.headers["content-length"]) == files[path]["size"]
        assert head.headers["etag"] == f'"{files[path]["lfs"]["oid"]}"'
        body = Answer(url, headers=agent)
        assert body.status == 200
        assert hashlib.sha256(body.body).hexdigest() == files[path]["lfs"]["oid"]
        rest = Answer(url, headers={**agent, "Range": "bytes=1000-"})
        assert (rest.status, rest.body) == (206, body.body[1000:])
    assert upstream.cdn_gets("tiny-Q4_K_M.gguf") == 1


@pytest.mark.case("A29", client=LLAMA_CPP)
def test_llama_cpp_of_2025_asks_for_a_manifest(gguf: MirrorProcess) -> None:
    """common/arg.cpp: reads `ggufFile.rfilename` and `mmprojFile.rfilename`."""
    agent = {"User-Agent": "llama-cpp", "Accept": "application/json"}
    for tag, path in {
        "latest": "tiny-Q4_K_M.gguf", "Q8_0": "tiny-Q8_0.gguf", "q8_0": "tiny-Q8_0.gguf",
        "BF16": "BF16/tiny-BF16-00001-of-00002.gguf",
    }.items():  # fmt: skip
        said: Any = Answer(f"{gguf.url}/v2/acme/gguf/manifests/{tag}", headers=agent).json
        assert said["ggufFile"]["rfilename"] == path
        assert said["mmprojFile"]["rfilename"] == "mmproj-tiny-F16.gguf"


@pytest.mark.case("A30", client=RUST_05)
def test_a30_rust_hf_hub_of_0_5(site: MirrorProcess, world: World) -> None:
    """src/api/sync.rs: the head of a file is a GET of its first byte."""
    commit = world.repo("acme/tiny").at("main")
    for path in ("model.safetensors", "config.json", "empty.txt"):
        url = f"{site.url}/acme/tiny/resolve/main/{path}"
        agent = {"User-Agent": "unkown/None; hf-hub/0.5.0; rust/unknown"}
        first = Answer(url, headers={**agent, "Range": "bytes=0-0"})
        file = commit.files[path]
        assert first.headers["x-repo-commit"] == commit.sha
        assert first.headers["etag"] == f'"{file.etag}"'
        assert int(first.headers["content-range"].partition("/")[2]) == file.size
        if file.size:
            assert first.status == 206
            assert first.headers["content-range"] == f"bytes 0-0/{file.size}"
        body = Answer(url, headers=agent)
        assert body.body == file.content.read(0, file.size)


@pytest.mark.case("A30", client=RUST_11)
def test_a30_rust_hf_hub_of_1_1(site: MirrorProcess, world: World) -> None:
    """hf-hub/src/repository/download.rs: info, tree, HEAD with If-None-Match, and GET."""
    commit = world.repo("acme/tiny").at("refs/pr/1")
    revision = quote("refs/pr/1", safe="")
    info: Any = Answer(f"{site.url}/api/models/acme/tiny/revision/{revision}").json
    assert info["sha"] == commit.sha
    tree: Any = Answer(f"{site.url}/api/models/acme/tiny/tree/{revision}?recursive=true").json
    assert {one["path"] for one in tree if one["type"] == "file"} == {*commit.files}
    url = f"{site.url}/acme/tiny/resolve/{revision}/model.safetensors"
    head = Answer(url, method="HEAD")
    assert head.headers["x-repo-commit"] == commit.sha
    assert head.headers["x-linked-size"] == str(commit.files["model.safetensors"].size)
    known = Answer(url, method="HEAD", headers={"If-None-Match": head.headers["etag"]})
    assert known.status == 304
    assert hashlib.sha256(Answer(url).body).hexdigest() == head.headers["etag"].strip('"')


@pytest.mark.case("A30", client=TGI)
def test_tgi(site: MirrorProcess, world: World) -> None:
    """router/src/server.rs through Rust, then server/…/utils/hub.py through Python."""
    commit = world.repo("acme/tiny").at("main")
    info: Any = Answer(f"{site.url}/api/models/acme/tiny/revision/main").json
    assert info["sha"] == commit.sha
    first = Answer(f"{site.url}/acme/tiny/resolve/main/config.json", headers={"Range": "bytes=0-0"})
    assert first.status == 206
    info = Answer(f"{site.url}/api/models/acme/tiny").json
    weights = [one["rfilename"] for one in info["siblings"]]
    assert [one for one in weights if one.endswith(".safetensors")] == ["model.safetensors"]
    assert info["pipeline_tag"] == "text-classification"
    missing = Answer(f"{site.url}/acme/tiny/resolve/main/adapter_config.json", method="HEAD")
    assert (missing.status, missing.headers["x-error-code"]) == (404, "EntryNotFound")


@pytest.mark.case("A29", client=OLLAMA)
def test_ollama_pull_of_a_cold_blob_in_16_ranges(gguf: MirrorProcess, upstream: HubProcess) -> None:
    """server/images.go and server/download.go: a manifest, and of each blob HEAD, a GET that is
    dropped, and ranges that look at no status."""
    base = f"{gguf.url}/v2/acme/gguf"
    accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
    answer = Answer(f"{base}/manifests/Q8_0", headers=accept)
    assert answer.status == 200
    assert answer.headers["content-type"] == accept["Accept"]
    manifest: Any = answer.json
    assert [one["mediaType"].rpartition(".")[2] for one in manifest["layers"]] == [
        "model", "projector",
    ]  # fmt: skip
    upstream.set(bandwidth=500_000)  # more seconds than others are let wait for a first byte
    for one in [*manifest["layers"], manifest["config"]]:
        url = f"{base}/blobs/{one['digest']}"
        size = int(Answer(url, method="HEAD").headers["content-length"])
        assert size == one["size"]
        step = max(1000, -(-size // 16))
        spans = [(at, min(at + step, size)) for at in range(0, size, step)]
        with ThreadPoolExecutor(16) as pool:
            parts = list(pool.map(_range, itertools.repeat(url), spans))
        assert [len(part) for part in parts] == [stop - start for start, stop in spans]
        assert f"sha256:{hashlib.sha256(b''.join(parts)).hexdigest()}" == one["digest"]
    assert upstream.cdn_bytes == sum(one["size"] for one in manifest["layers"])


@pytest.mark.case("A29", client=OLLAMA)
def test_ollama_is_told_why_not(gguf: MirrorProcess) -> None:
    """It shows the body of a 403, and "file does not exist" for every 404."""
    refused = Answer(f"{gguf.url}/v2/acme/other/manifests/latest")
    assert refused.status == 403
    assert CONTACT in refused.body.decode()
    assert "acme/other is not on this mirror's allowlist" in refused.body.decode()
    split = Answer(f"{gguf.url}/v2/acme/gguf/manifests/BF16")
    assert split.status == 400
    assert b"split into several files" in split.body
    assert Answer(f"{gguf.url}/v2/acme/gguf/manifests/Q2_K").status == 404
    foreign = Content("tiny main", 3 * 1024 * 1024 + 17).sha256()  # a file of acme/tiny
    assert Answer(f"{gguf.url}/v2/acme/gguf/blobs/sha256:{foreign}").status == 404


def test_a_config_is_the_same_everywhere(gguf: MirrorProcess, start_mirror: MakeMirror) -> None:
    other = start_mirror("acme/gguf@main")
    url = "/v2/acme/gguf/manifests/tiny-Q8_0.gguf"
    assert Answer(gguf.url + url).body == Answer(other.url + url).body
    config: Any = Answer(gguf.url + url).json
    body = Answer(f"{other.url}/v2/acme/gguf/blobs/{config['config']['digest']}").body
    assert json.loads(body)["file_type"] == "Q8_0"


def _range(url: str, span: tuple[int, int]) -> bytes:
    """As patient as Go's default client: it waits for ever."""
    start, stop = span
    return Answer(url, headers={"Range": f"bytes={start}-{stop - 1}"}, timeout_s=60).body


# --- upstreams in the wild -----------------------------------------------------------------------


@pytest.mark.case("A39", client="by hand")
def test_a39_an_upstream_like_hf_mirror(start_mirror: MakeMirror, world: World) -> None:
    """Absolute 308 to another host, `Link` that names yet another, 302 to a CDN."""
    with HubProcess(Settings(mirror=True, resolve_cache=True)) as hub:
        mirror = start_mirror(
            "acme/tiny@main", "acme/many@main", upstream_url=hub.mirror_url,
            redirect_hosts=f"127.0.0.2, {urlsplit(hub.url).netloc}",
        )  # fmt: skip
        for path, file in world.repo("acme/tiny").at("main").files.items():
            got = Answer(f"{mirror.url}/acme/tiny/resolve/main/{quote(path)}")
            assert hashlib.sha256(got.body).hexdigest() == file.digest.hex
        listed: Any = Answer(f"{mirror.url}/api/models/acme/many/tree/main?recursive=true").json
        files = [one["path"] for one in listed if one["type"] == "file"]
        assert files == sorted(world.repo("acme/many").at("main").files)
        assert [seen for seen in hub.requests(host="mirror") if seen.status == 308]


@pytest.mark.case("A40", client="by hand")
def test_a40_an_upstream_that_is_busy_is_asked_again_when_it_said(
    start_mirror: MakeMirror, upstream: HubProcess
) -> None:
    mirror = start_mirror("solo@main")
    upstream.reset()
    upstream.fault("U05", route="revision", retry_after=3)
    mirror.allow("solo@main", "acme/tiny@main")
    mirror.wait_until(lambda: upstream.requests(route="revision"))
    answer = Answer(f"{mirror.url}/api/models/acme/tiny/revision/main", timeout_s=30)
    assert answer.status == 200
    asked = [one for one in upstream.requests(route="revision") if one.repo == "acme/tiny"]
    assert [one.status for one in asked] == [429, 200]


@pytest.mark.case("A42", client="by hand")
def test_a42_another_case_an_alias_and_the_name_that_the_hub_gave(
    start_mirror: MakeMirror, upstream: HubProcess, world: World
) -> None:
    upstream.rename("solo", "acme/solo")
    mirror = start_mirror("solo@main", "{repo: acme/tiny, revision: main, aliases: [old-tiny]}")
    upstream.reset()
    for listed, names in {
        "solo": ("acme/solo", "Acme/SOLO", "SOLO"), "acme/tiny": ("ACME/Tiny", "old-tiny"),
    }.items():  # fmt: skip
        sha = upstream.sha("acme/solo" if listed == "solo" else listed)
        for name in names:
            info: Any = Answer(f"{mirror.url}/api/models/{name}").json
            assert (info["id"], info["sha"]) == (listed, sha)
            tree = Answer(f"{mirror.url}/api/models/{name}/tree/main?recursive=true")
            same = Answer(f"{mirror.url}/api/models/{listed}/tree/main?recursive=true")
            assert tree.body == same.body
            head = Answer(f"{mirror.url}/{name}/resolve/main/config.json", method="HEAD")
            assert (head.status, head.headers["x-repo-commit"]) == (200, sha)
            refs = Answer(f"{mirror.url}/{name}/info/refs?service=git-upload-pack")
            assert refs.status == 200
    assert Answer(f"{mirror.url}/api/models/tiny").status == 404
    assert upstream.requests() == []
