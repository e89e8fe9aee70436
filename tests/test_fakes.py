"""The fakes do what they say: a test that trusts them needs that."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from contextlib import aclosing
from urllib.parse import quote

import pytest

from proxy.errors import RangeIgnored, UpstreamUnavailable
from proxy.hub.names import RepoId, Revision
from proxy.pins.lock import Entry
from proxy.upstream.base import Upstream
from tests.fakes.acme import ODD_NAMES, WEIGHTS_SIZE, acme_world
from tests.fakes.content import BLOCK, Content, Twisted
from tests.fakes.hub_server import HubServer
from tests.fakes.memory import FakeHub
from tests.fakes.rawclient import Answer, get
from tests.fakes.settings import Settings
from tests.fakes.world import Repo, lfs, regular


async def read(upstream: Upstream, entry: Entry, start: int = 0) -> bytes:
    got = b""
    async with asyncio.timeout(5), aclosing(upstream.fetch(entry, start, entry.size)) as body:
        async for piece in body:
            got += piece
    return got


# --- content -------------------------------------------------------------------------------------


def test_content_is_the_same_every_time_and_at_every_offset() -> None:
    content = Content("weights", 3 * BLOCK + 17)
    whole = content.read(0, content.size)
    assert len(whole) == content.size
    assert hashlib.sha256(whole).hexdigest() == content.sha256()
    for start, stop in ((0, 5), (3, 30), (BLOCK - 4, BLOCK + 40), (2 * BLOCK, content.size + 9)):
        assert content.read(start, stop) == whole[start:stop]


def test_no_two_blocks_of_content_are_alike() -> None:
    content = Content(1, 3 * BLOCK)
    blocks = {content.read(at, at + BLOCK) for at in range(0, content.size, BLOCK)}
    assert len(blocks) == 3
    assert Content(2, 3 * BLOCK).sha256() != content.sha256()


def test_twisted_content_has_one_wrong_byte() -> None:
    right = Content(1, 1000)
    wrong = Twisted(right)
    pairs = zip(right.read(0, 1000), wrong.read(0, 1000), strict=True)
    assert sum(a != b for a, b in pairs) == 1
    assert wrong.read(300, 350) != right.read(300, 350)


# --- world ---------------------------------------------------------------------------------------


def test_a_commit_has_the_id_that_git_gives_it() -> None:
    repo = Repo(RepoId("acme/tiny"))
    first = repo.commit({"a.txt": regular("hello\n")}, title="first")
    # git init; printf 'hello\n' >a.txt; git add; git commit with the same author and date
    assert repo.commits[first].folders[""] == "2e81171448eb9f2ee3821e3d447aa6b2fe3ddba1"
    assert first == "4713dc64ed7f87cce8cd2bbfec4f4ac667c255cf"
    second = repo.commit({"a.txt": None, "b/c.bin": lfs(b"x")})
    assert [commit.sha for commit in repo.history("main")] == [second, first]
    assert repo.at().files.keys() == {"b/c.bin"}


# --- the upstream in memory ----------------------------------------------------------------------

DATA = Content("data", 300_000).read(0, 300_000)


async def test_a_published_file_can_be_fetched_and_listed() -> None:
    hub = FakeHub()
    entry = hub.publish("gpt2", "model.bin", DATA)
    small = hub.publish("gpt2", "config.json", "{}", lfs=False)
    assert await read(hub, entry) == DATA
    assert await read(hub, small) == b"{}"
    info = await hub.info(RepoId("gpt2"), Revision("main"))
    assert info.commit == small.commit
    listed = {row.path: row async for row in hub.tree(RepoId("gpt2"), info.commit)}
    assert listed[entry.path].lfs == entry.digest
    assert listed[small.path].lfs is None
    assert listed[small.path].git_oid == small.etag


async def test_a_cut_happens_once_and_a_resume_gives_the_rest() -> None:
    hub = FakeHub()
    entry = hub.publish("gpt2", "model.bin", DATA)
    hub.cut_after = 100 * 1024
    got = b""
    with pytest.raises(UpstreamUnavailable):
        async with aclosing(hub.fetch(entry, 0, entry.size)) as body:
            async for piece in body:
                got += piece
    assert len(got) == 100 * 1024
    assert got + await read(hub, entry, len(got)) == DATA
    assert hub.fetched == [("model.bin", 0), ("model.bin", 100 * 1024)]


async def test_an_upstream_that_ignores_ranges_says_so() -> None:
    hub = FakeHub()
    entry = hub.publish("gpt2", "model.bin", DATA)
    hub.ignores_range = True
    assert await read(hub, entry) == DATA
    with pytest.raises(RangeIgnored):
        await read(hub, entry, 5)


async def test_lies_have_the_right_length() -> None:
    hub = FakeHub()
    entry = hub.publish("gpt2", "model.bin", DATA)
    hub.lies = True
    got = await read(hub, entry)
    assert len(got) == len(DATA)
    assert got != DATA


async def test_a_fetch_waits_at_the_gate() -> None:
    hub = FakeHub()
    entry = hub.publish("gpt2", "model.bin", DATA)
    hub.gate = asyncio.Event()
    task = asyncio.create_task(read(hub, entry))
    await asyncio.wait_for(hub.at_gate.wait(), 5)
    assert hub.sent == 0
    hub.gate.set()
    assert await task == DATA
    assert hub.active == 0


# --- the Hub on sockets --------------------------------------------------------------------------

WEIGHTS = "/acme/tiny/resolve/main/model.safetensors"
WEIGHTS_CONTENT = Content("tiny main", WEIGHTS_SIZE)


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer(acme_world(many=30)) as hub:
        yield hub


def test_an_lfs_file_is_a_redirect_to_a_signed_url(server: HubServer) -> None:
    answer = Answer(server.url + WEIGHTS, method="HEAD")
    assert answer.status == 302
    assert answer.headers["location"].startswith(server.cdn_url)
    assert answer.headers["x-linked-etag"] == f'"{WEIGHTS_CONTENT.sha256()}"'
    assert answer.headers["x-linked-size"] == str(WEIGHTS_SIZE)
    assert answer.headers["x-repo-commit"] == server.sha("acme/tiny")
    assert 'rel="xet-auth"' in answer.headers["link"]
    whole = get(server.url + WEIGHTS)
    assert whole.body == WEIGHTS_CONTENT.read(0, WEIGHTS_SIZE)
    part = get(server.url + WEIGHTS, headers={"Range": "bytes=1000000-1000009"})
    assert part.status == 206
    assert part.body == WEIGHTS_CONTENT.read(1_000_000, 1_000_010)
    assert part.headers["content-range"] == f"bytes 1000000-1000009/{WEIGHTS_SIZE}"
    assert server.cdn_gets("model.safetensors") == 2
    assert server.cdn_bytes == WEIGHTS_SIZE + 10


def test_every_revision_has_bytes_of_its_own(server: HubServer) -> None:
    world = acme_world(many=0)
    for revision in ("main", "feature/x", "v1.0", "refs/pr/1"):
        for spelling in {revision, quote(revision, safe="")}:
            answer = get(f"{server.url}/acme/tiny/resolve/{spelling}/config.json")
            assert answer.json == {**json.loads(answer.body), "revision_of_the_fixture": revision}
            assert answer.headers["x-repo-commit"] == world.repo("acme/tiny").at(revision).sha


def test_odd_names_are_found_under_their_encoded_spelling(server: HubServer) -> None:
    for name in ODD_NAMES:
        answer = get(f"{server.url}/acme/tiny/resolve/main/{quote(name)}")
        assert answer.body == f"{name} at main\n".encode()
    assert get(f"{server.url}/acme/tiny/resolve/main/empty.txt").body == b""


def test_the_cdn_refuses_tokens_and_forged_signatures(server: HubServer) -> None:
    url = Answer(server.url + WEIGHTS, method="HEAD").headers["location"]
    assert Answer(url, headers={"Authorization": "Bearer x"}).status == 400
    assert Answer(url.replace("Signature=", "Signature=0")).status == 403
    assert Answer(url).status == 200
    server.set(url_life_s=-1.0)
    assert get(server.url + WEIGHTS).status == 403


def test_a_tree_comes_in_pages(server: HubServer) -> None:
    server.set(page_size=7)
    url = f"{server.url}/api/models/acme/many/tree/main?recursive=true"
    paths: list[str] = []
    pages = 0
    while url:
        answer = Answer(url)
        rows = json.loads(answer.body)
        paths += [row["path"] for row in rows if row["type"] == "file"]
        url = answer.headers.get("link", "").partition(">")[0].lstrip("<")
        pages += 1
    assert len(paths) == len(set(paths)) == 30
    assert pages == 5


def test_the_api_describes_a_repository(server: HubServer) -> None:
    api = f"{server.url}/api/models/acme/tiny"
    info = json.loads(Answer(f"{api}/revision/main?blobs=true").body)
    assert info["sha"] == server.sha("acme/tiny")
    assert info["pipeline_tag"] == "text-classification"
    sizes = {row["rfilename"]: row["size"] for row in info["siblings"]}
    assert sizes["model.safetensors"] == WEIGHTS_SIZE
    refs = json.loads(Answer(f"{api}/refs?include_prs=1").body)
    assert {ref["name"] for ref in refs["branches"]} == {"main", "feature/x"}
    assert [ref["name"] for ref in refs["pullRequests"]] == ["refs/pr/1"]
    assert len(json.loads(Answer(f"{api}/commits/main").body)) == 2
    folder = json.loads(Answer(f"{api}/tree/main/sub%2Fdir").body)
    assert [row["path"] for row in folder] == ["sub/dir/deep"]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for headers, body in (
        (form, "paths=config.json&paths=absent&expand=False"),
        ({"Content-Type": "application/json"}, '{"paths":["config.json","absent"]}'),
    ):
        answer = Answer(f"{api}/paths-info/main", method="POST", headers=headers, body=body)
        assert [row["path"] for row in json.loads(answer.body)] == ["config.json"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/models/acme/none", 401, "RepoNotFound"),
        ("/acme/none/resolve/main/x", 401, "RepoNotFound"),
        ("/acme/tiny/resolve/v9/config.json", 404, "RevisionNotFound"),
        ("/acme/tiny/resolve/main/absent", 404, "EntryNotFound"),
        ("/api/models/acme/tiny/tree/main/absent", 404, "EntryNotFound"),
        ("/datasets/acme/tiny/resolve/main/config.json", 401, "RepoNotFound"),
    ],
)
def test_refusals_carry_the_hubs_codes(
    server: HubServer, path: str, status: int, code: str
) -> None:
    answer = Answer(server.url + path)
    assert (answer.status, answer.headers["x-error-code"]) == (status, code)


def test_restricted_repositories_want_the_token(server: HubServer) -> None:
    bearer = {"Authorization": f"Bearer {server.settings.token}"}
    config = f"{server.url}/solo/resolve/main/config.json"
    server.restrict("solo", gated="manual")
    assert Answer(config).headers["x-error-code"] == "GatedRepo"
    assert Answer(config, headers=bearer).status == 200
    assert Answer(config, headers={"Authorization": "Bearer wrong"}).status == 401
    server.restrict("solo", gated="manual", granted=False)
    assert Answer(config, headers=bearer).status == 403
    server.restrict("solo", private=True)
    assert Answer(config).headers["x-error-code"] == "RepoNotFound"
    assert Answer(config, headers=bearer).status == 200


def test_the_world_changes_while_it_is_served(server: HubServer) -> None:
    config = f"{server.url}/acme/tiny/resolve/v1.0/config.json"
    before = server.sha("acme/tiny", "v1.0")
    moved = server.move("acme/tiny", "v1.0", "main")
    assert moved != before
    assert Answer(config).headers["x-repo-commit"] == moved
    server.rename("acme/tiny", "acme/small")
    assert Answer(config).headers["location"].startswith("/acme/small/")
    assert get(config).status == 200
    server.delete("acme/small")
    assert get(config).status == 401


def test_a_mirror_redirects_absolutely_and_links_elsewhere() -> None:
    with HubServer(acme_world(many=30), Settings(mirror=True, page_size=5)) as hub:
        answer = Answer(hub.mirror_url + WEIGHTS)
        assert answer.status == 308
        assert answer.headers["location"] == hub.url + WEIGHTS
        info = Answer(f"{hub.mirror_url}/api/models/acme/many")
        assert info.headers["location"].startswith(f"{hub.url}/api/")
        tree = Answer(f"{hub.mirror_url}/api/models/acme/many/tree/main?recursive=true")
        assert "<https://huggingface.co/api/models/acme/many/tree/main?" in tree.headers["link"]


def test_regular_files_can_come_through_the_resolve_cache(server: HubServer) -> None:
    server.set(resolve_cache=True)
    for repo in ("acme/tiny", "solo"):
        first = Answer(f"{server.url}/{repo}/resolve/main/config.json")
        assert first.status == 307
        assert first.headers["location"].startswith("/api/resolve-cache/models/")
        assert json.loads(get(f"{server.url}/{repo}/resolve/main/config.json").body)
