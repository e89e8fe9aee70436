"""The Hub's JSON, from the lock alone: it works with the upstream down and nothing held."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from tests.fakes.world import regular
from tests.mirror.bench import Puppet
from tests.server.world import FILES, ODD_NAME, Reply, World, serving

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def world(world: World) -> World:
    world.hub.down = True
    return world


def record(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value


def records(value: object) -> list[dict[str, object]]:
    assert isinstance(value, list)
    return [record(one) for one in value]


def paths(reply: Reply) -> list[object]:
    assert reply.status == 200, reply.body
    return [one["path"] for one in records(reply.json)]


# --- info -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", ["", "/revision/main", "/revision/v1.0", "/revision/HEAD"])
async def test_the_repository_is_described_as_it_is_locked(world: World, tail: str) -> None:
    reply = await world.ask(f"/api/models/acme/tiny{tail}")
    info = record(reply.json)
    commit = world.entry().commit
    assert reply.headers["X-Repo-Commit"] == info["sha"] == commit
    assert info["id"] == info["modelId"] == "acme/tiny"
    assert {one["rfilename"] for one in records(info["siblings"])} == set(FILES)
    assert info["private"] is False
    assert info["gated"] is False
    # huggingface_hub 0.20 takes these for granted.
    assert {"downloads", "likes", "tags", "lastModified"} <= info.keys()


async def test_json_is_compact_because_a_script_greps_it(world: World) -> None:
    body = (await world.ask("/api/models/acme/tiny")).body
    assert b'"rfilename":"README.md"' in body


async def test_a_commit_describes_itself(world: World) -> None:
    commit = world.entry().commit
    assert (
        record((await world.ask(f"/api/models/acme/tiny/revision/{commit}")).json)["sha"] == commit
    )


async def test_sizes_and_digests_are_told_on_demand(world: World) -> None:
    for value in ("true", "True", "1"):
        info = record((await world.ask(f"/api/models/acme/tiny?blobs={value}")).json)
        siblings = {one["rfilename"]: one for one in records(info["siblings"])}
        model = siblings["model.bin"]
        assert model["size"] == FILES["model.bin"].size
        assert record(model["lfs"])["sha256"] == FILES["model.bin"].digest.hex
        assert "lfs" not in siblings["config.json"]
        assert siblings["config.json"]["blobId"] == FILES["config.json"].git_oid
    plain = record((await world.ask("/api/models/acme/tiny?blobs=false")).json)
    assert all("size" not in one for one in records(plain["siblings"]))


# --- tree -----------------------------------------------------------------------------------------


async def test_the_tree_of_the_top_lists_files_and_folders(world: World) -> None:
    reply = await world.ask("/api/models/acme/tiny/tree/main")
    assert sorted(map(str, paths(reply))) == [
        "README.md", "config.json", "empty.txt", "model.bin", "sub",
    ]  # fmt: skip
    assert reply.headers["X-Repo-Commit"] == world.entry().commit


@pytest.mark.parametrize("flag", ["true", "True", "1"])
async def test_the_whole_tree_comes_on_one_page(world: World, flag: str) -> None:
    reply = await world.ask(f"/api/models/acme/tiny/tree/main?recursive={flag}&expand=false")
    assert set(paths(reply)) == {*FILES, "sub", "sub/deep"}
    assert "Link" not in reply.headers


async def test_entries_of_the_tree_have_the_ids_that_git_knows(world: World) -> None:
    reply = await world.ask("/api/models/acme/tiny/tree/main?recursive=true")
    found = {str(one["path"]): one for one in records(reply.json)}
    for path, file in FILES.items():
        assert found[path]["type"] == "file"
        assert found[path]["size"] == file.size
        assert found[path]["oid"] == file.git_oid
    lfs = record(found["model.bin"]["lfs"])
    assert lfs == {
        "oid": FILES["model.bin"].digest.hex,
        "size": FILES["model.bin"].size,
        "pointerSize": len(FILES["model.bin"].pointer),
    }
    commit = world.hub.world.repos["acme/tiny"].at()
    assert found["sub"]["type"] == "directory"
    assert found["sub"]["oid"] == commit.folders["sub"]
    assert "xetHash" not in reply.body.decode()


@pytest.mark.parametrize("spelling", ["sub/deep", "sub%2Fdeep", "sub/deep/"])
async def test_a_folder_can_be_listed_however_its_slash_is_written(
    world: World, spelling: str
) -> None:
    reply = await world.ask(f"/api/models/acme/tiny/tree/main/{spelling}")
    assert paths(reply) == ["sub/deep/small.bin"]


async def test_a_folder_that_is_not_there_is_said_so(world: World) -> None:
    reply = await world.ask("/api/models/acme/tiny/tree/main/nothing")
    assert (reply.status, reply.code) == (404, "EntryNotFound")


# --- paths-info -----------------------------------------------------------------------------------


async def test_paths_are_described_whether_asked_by_form_or_by_json(world: World) -> None:
    asked = ["model.bin", "sub", "nothing", ODD_NAME]
    url = "/api/models/acme/tiny/paths-info/main"
    form = urlencode([("paths", one) for one in asked] + [("expand", "False")]).encode()
    body = json.dumps({"paths": asked, "expand": True}).encode()
    by_form = await world.ask(url, method="POST", headers=FORM, body=form)
    by_json = await world.ask(url, method="POST", headers=JSON, body=body)
    assert paths(by_form) == paths(by_json) == ["model.bin", "sub", ODD_NAME]
    assert by_form.body == by_json.body


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"null", b"{}", b'{"paths": 5}', b"[" * 5000, b'{"paths": {"a": 1}}', b"\xff"],
)
async def test_a_body_that_names_no_paths_is_a_bad_request_or_nothing(
    world: World, body: bytes
) -> None:
    reply = await world.ask(
        "/api/models/acme/tiny/paths-info/main", method="POST", headers=JSON, body=body
    )
    assert reply.status in (200, 400)
    if reply.status == 200:
        assert reply.json == []


async def test_a_body_that_is_too_large_is_refused(world: World) -> None:
    body = json.dumps({"paths": ["x" * 2_000_000]}).encode()
    reply = await world.ask(
        "/api/models/acme/tiny/paths-info/main", method="POST", headers=JSON, body=body
    )
    assert reply.status == 413


async def test_a_path_is_described_once_however_often_it_is_asked_for(world: World) -> None:
    """Else a request of a megabyte has an answer of thirty."""
    asked = [
        "sub",
        "model.bin",
        *["a", "config.json", "/config.json", "sub/"] * 20_000,
        "README.md",
    ]
    body = json.dumps({"paths": asked}).encode()
    reply = await world.ask(
        "/api/models/acme/tiny/paths-info/main", method="POST", headers=JSON, body=body
    )
    assert paths(reply) == ["sub", "model.bin", "config.json", "README.md"]


async def test_paths_are_asked_for_by_post(world: World) -> None:
    reply = await world.ask("/api/models/acme/tiny/paths-info/main")
    assert reply.status == 405
    assert reply.headers["Allow"] == "POST"


# --- refs, commits, lists -------------------------------------------------------------------------


async def test_refs_are_the_allowed_ones_at_their_locked_commits(world: World) -> None:
    refs = record((await world.ask("/api/models/acme/tiny/refs")).json)
    commit = world.entry().commit
    assert [(one["name"], one["targetCommit"]) for one in records(refs["branches"])] == [
        ("main", commit)
    ]
    assert [(one["name"], one["ref"]) for one in records(refs["tags"])] == [
        ("v1.0", "refs/tags/v1.0")
    ]
    assert "pullRequests" not in refs
    asked = record((await world.ask("/api/models/acme/tiny/refs?include_prs=1")).json)
    assert asked["pullRequests"] == []


async def test_the_history_is_the_locked_commit(world: World) -> None:
    (commit,) = records((await world.ask("/api/models/acme/tiny/commits/main")).json)
    assert commit["id"] == world.entry().commit


async def test_the_list_is_what_is_locked(world: World) -> None:
    async def ids(query: str) -> list[object]:
        return [one["id"] for one in records((await world.ask(f"/api/{query}")).json)]

    assert await ids("models") == ["acme/tiny"]
    assert await ids("datasets") == ["acme/d"]
    assert await ids("spaces") == []
    assert await ids("models?search=TIN") == ["acme/tiny"]
    assert await ids("models?search=other") == []
    assert await ids("models?author=acme") == ["acme/tiny"]
    assert await ids("models?author=acm") == []
    assert await ids("models?limit=0") == []
    assert await ids("models?limit=x") == ["acme/tiny"]


async def test_a_login_is_neither_needed_nor_possible(world: World) -> None:
    assert (await world.ask("/api/models/acme/tiny/auth-check")).status == 200
    assert (await world.ask("/api/models/acme/other/auth-check")).code == "RepoNotFound"
    assert (await world.ask("/api/whoami-v2")).status == 401


async def test_the_question_for_harnesses_is_answered_once_and_for_all(world: World) -> None:
    assert (await world.ask("/api/agent-harnesses")).status == 200


async def test_nothing_here_asked_an_upstream(world: World) -> None:
    before = (len(world.hub.asked), len(world.hub.listed), len(world.hub.fetched))
    for url in ("", "/tree/main?recursive=1", "/refs", "/commits/main", "/revision/v1.0"):
        assert (await world.ask(f"/api/models/acme/tiny{url}")).status == 200
    assert (len(world.hub.asked), len(world.hub.listed), len(world.hub.fetched)) == before


# --- spellings of revisions -----------------------------------------------------------------------


@pytest.fixture
async def branches(tmp_path: Path) -> AsyncGenerator[World]:
    hub = Puppet()
    tiny = hub.world.repo("acme/tiny")
    for branch in ("main", "feature/x", "refs/pr/1"):
        tiny.commit({"a/b.txt": regular(branch)}, branch=branch)
    text = "allow: [acme/tiny@main, acme/tiny@feature/x, acme/tiny@refs/pr/1]"
    async with serving(tmp_path, hub=hub, allowlist=text) as made:
        await made.lock()
        yield made


@pytest.mark.parametrize("revision", ["main", "feature/x", "refs/pr/1"])
@pytest.mark.parametrize("encoded", [True, False])
async def test_the_slash_of_a_revision_may_be_encoded_or_not(
    branches: World, revision: str, encoded: bool
) -> None:
    spelled = quote(revision, safe="" if encoded else "/")
    file = await branches.ask(f"/acme/tiny/resolve/{spelled}/a/b.txt")
    assert file.body == revision.encode()
    info = await branches.ask(f"/api/models/acme/tiny/revision/{spelled}")
    assert record(info.json)["sha"] == file.headers["X-Repo-Commit"]
    assert paths(await branches.ask(f"/api/models/acme/tiny/tree/{spelled}/a")) == ["a/b.txt"]


async def test_pull_requests_are_told_on_demand(branches: World) -> None:
    refs = record((await branches.ask("/api/models/acme/tiny/refs?include_prs=True")).json)
    assert [one["ref"] for one in records(refs["pullRequests"])] == ["refs/pr/1"]
    assert {one["name"] for one in records(refs["branches"])} == {"main", "feature/x"}
