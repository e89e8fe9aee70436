"""What git, git-lfs and Ollama are answered, request by request; the programs run in tests/e2e."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from proxy.hub.gitpack import DELIMITER, FLUSH, Mark, pkt, pkts
from proxy.mirror import flock, packs
from proxy.server import resolve
from tests.server.world import MODEL, Reply, World

V2 = {"Git-Protocol": "version=2"}
REFS = "/acme/tiny/info/refs?service=git-upload-pack"
UPLOAD = "/acme/tiny/git-upload-pack"


async def advertised(world: World) -> dict[str, str]:
    reply = await world.ask(REFS)
    assert reply.headers["Content-Type"] == "application/x-git-upload-pack-advertisement"
    lines = [line for line in pkts(reply.body) if isinstance(line, bytes)][1:]
    pairs = [line.partition(b"\0")[0].decode().split(" ") for line in lines]
    return {name: oid for oid, name in pairs}


def request(command: str, lines: Sequence[str]) -> bytes:
    return b"".join([pkt(f"command={command}\n"), DELIMITER, *map(pkt, lines), FLUSH])


async def fetch(world: World, *lines: str) -> Reply:
    return await world.ask(UPLOAD, method="POST", headers=V2, body=request("fetch", lines))


def pack_of(reply: Reply) -> bytes:
    """The pack in an answer to fetch, put together from its packets."""
    lines = [line for line in _raw_lines(reply.body) if line[:1] == b"\1"]
    return b"".join(line[1:] for line in lines)


def _raw_lines(body: bytes) -> list[bytes]:
    lines, at = [], 0
    while at < len(body):
        length = max(4, int(body[at : at + 4], 16))
        lines.append(body[at + 4 : at + length])
        at += length
    return lines


async def test_refs_are_the_allowed_revisions(world: World) -> None:
    refs = await advertised(world)
    assert set(refs) == {"HEAD", "refs/heads/main", "refs/tags/v1.0"}
    assert refs["HEAD"] == refs["refs/heads/main"]
    listing = request("ls-refs", ["symrefs\n", "ref-prefix refs/heads/\n", "ref-prefix HEAD\n"])
    reply = await world.ask(UPLOAD, method="POST", headers=V2, body=listing)
    head, main, end = pkts(reply.body)
    assert head == f"{refs['HEAD']} HEAD symref-target:refs/heads/main".encode()
    assert main == f"{refs['HEAD']} refs/heads/main".encode()
    assert end is Mark.FLUSH


async def test_a_pack_is_made_once_and_made_again_if_it_was_damaged(world: World) -> None:
    want = f"want {(await advertised(world))['HEAD']}\n"
    first = await fetch(world, want, "done\n")
    assert first.status == 200
    assert first.whole
    assert pack_of(first).startswith(b"PACK")
    (file,) = (world.config.data / "git-v1").glob("*.pack")
    made = file.stat().st_ino
    assert pack_of(await fetch(world, want, "done\n")) == file.read_bytes()
    assert file.stat().st_ino == made
    file.write_bytes(file.read_bytes()[:-30])
    world.site.__post_init__()  # as another process finds it
    again = await fetch(world, want, "done\n")
    assert pack_of(again) == pack_of(first)


async def test_a_pack_that_another_process_makes_is_left_alone(world: World) -> None:
    folder = world.config.data / "git-v1"
    folder.mkdir()
    abandoned = folder / "ab.1.part"
    abandoned.write_bytes(b"half")
    with flock.create(folder / "cd.2.part") as busy:
        busy.write(b"half")
        want = f"want {(await advertised(world))['HEAD']}\n"
        assert (await fetch(world, want, "done\n")).whole
        assert [file.name for file in folder.glob("*.part")] == ["cd.2.part"]
        assert not abandoned.exists()


async def test_a_blob_that_went_bad_is_not_packed(world: World) -> None:
    want = f"want {(await advertised(world))['HEAD']}\n"
    blob = world.blob("config.json")
    blob.chmod(0o644)
    blob.write_bytes(b"[]")
    await world.mirror.store.confirm(world.entry("config.json").digest)  # it looks untouched
    reply = await fetch(world, want, "done\n")
    assert reply.status == 500
    assert not list((world.config.data / "git-v1").glob("*"))


async def test_a_repository_that_is_too_large_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "MAX_BYTES", 10)
    reply = await fetch(world, f"want {(await advertised(world))['HEAD']}\n", "done\n")
    assert reply.status == 403
    assert b"use hf download" in reply.body


async def test_haves_are_not_common_and_depth_changes_nothing(world: World) -> None:
    want = f"want {(await advertised(world))['HEAD']}\n"
    more = await fetch(world, want, f"have {'1' * 40}\n")
    assert list(pkts(more.body)) == [b"acknowledgments", b"NAK", Mark.FLUSH]
    deep = await fetch(world, want, "deepen 1\n", "done\n")
    assert list(pkts(deep.body))[:3] == [b"shallow-info", Mark.DELIMITER, b"packfile"]
    assert pack_of(deep) == pack_of(await fetch(world, want, "done\n"))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"0000", b"zzzz", b"0001", b"ffff", pkt("command=push\n") + FLUSH,
        request("fetch", ["done\n"]), request("fetch", [f"want {'1' * 40}\n", "done\n"]),
        request("fetch", ["want x\n", "done\n"]), pkt(f"want {'1' * 40} side-band-64k\n") + FLUSH,
        pkt("want \xff\n") + FLUSH + pkt("done\n"), b"\x1f\x8b" * 100,
    ],
)  # fmt: skip
@pytest.mark.parametrize("headers", [{}, V2, {"Git-Protocol": "version=1:x"}])
async def test_nonsense_is_refused_as_text(
    world: World, body: bytes, headers: dict[str, str]
) -> None:
    reply = await world.ask(UPLOAD, method="POST", headers=headers, body=body)
    assert reply.status in (200, 400)
    if reply.status == 400:
        assert reply.headers["Content-Type"].startswith("text/plain")
    else:
        assert len(reply.body) < 200


@pytest.mark.parametrize("service", ["git-upload-pack", "info/lfs/objects/batch"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_is_posted_cannot_be_read(world: World, service: str, method: str) -> None:
    """It is no upload, and must not be told as one."""
    reply = await world.ask(f"/acme/tiny.git/{service}", method=method)
    assert (reply.status, reply.code) == (405, "MethodNotAllowed")
    assert reply.headers["Allow"] == "POST"
    assert not reply.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/acme/other.git/info/refs?service=git-upload-pack", 404),
        ("GET", "/acme/tiny/info/refs?service=git-receive-pack", 403),
        ("GET", "/acme/tiny/info/refs", 400),
        ("POST", "/acme/tiny/git-receive-pack", 403),
        ("POST", "/acme/other/git-upload-pack", 404),
        ("PUT", "/acme/tiny/info/refs", 403),
    ],
)
async def test_a_refusal_is_text_and_never_asks_for_a_password(
    world: World, method: str, target: str, status: int
) -> None:
    reply = await world.ask(target, method=method, body=b"0000" if method == "POST" else b"")
    assert reply.status == status
    assert reply.headers["Content-Type"].startswith("text/plain")
    assert "WWW-Authenticate" not in reply.headers
    assert reply.body.decode().strip()


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b'{"operation":"download"}', b'{"operation":"download","objects":[1]}',
     b'{"operation":"download","objects":[{"oid":1,"size":"x"}]}', b"[" * 10_000],
)  # fmt: skip
async def test_nonsense_is_refused_in_the_words_of_git_lfs(world: World, body: bytes) -> None:
    reply = await world.ask(
        "/acme/tiny.git/info/lfs/objects/batch", method="POST", body=body or b" "
    )
    assert reply.status == 400
    assert reply.headers["Content-Type"] == "application/vnd.git-lfs+json"
    assert json.loads(reply.body)["message"]


async def test_git_lfs_is_sent_to_the_file_of_the_locked_commit(world: World) -> None:
    entry = world.entry()
    asked = {"operation": "download", "objects": [{"oid": MODEL.sha256(), "size": 1}]}
    reply = await world.ask(
        "/acme/tiny.git/info/lfs/objects/batch", method="POST", body=json.dumps(asked).encode()
    )
    said: Any = reply.json
    (found,) = said["objects"]
    assert found["size"] == entry.size
    href = f"http://127.0.0.1:{world.port}/acme/tiny/resolve/{entry.commit}/model.bin"
    assert found["actions"]["download"]["href"] == href


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/v2/acme/tiny/manifests/latest", 404),  # it has no GGUF file
        ("/v2/acme/tiny/blobs/sha256:x", 400),
        (f"/v2/acme/tiny/blobs/sha256:{'0' * 64}", 404),
        ("/v2/acme/other/manifests/latest", 403),
        ("/v2/acme/tiny/tags/list", 404),
        ("/v2/", 404),
    ],
)
async def test_a_registry_without_models(world: World, target: str, status: int) -> None:
    assert (await world.ask(target)).status == status


@pytest.mark.parametrize(
    ("agent", "sized"),
    [
        ("unknown/None; hf_hub/1.31.0; python/3.11", False),
        ("unknown/None; hf_hub/2.4.0; python/3.11", False),
        ("unknown/None; hf_hub/1.30.2; python/3.11", True),
        ("unknown/None; hf_hub/0.36.2; python/3.11", True),
        ("curl/7.88.1", True),
    ],
)
async def test_a_file_that_hub_clients_refuse_by_its_size_has_none_in_its_head(
    world: World, monkeypatch: pytest.MonkeyPatch, agent: str, sized: bool
) -> None:
    monkeypatch.setattr(resolve, "MAX_HTTP_DOWNLOAD", MODEL.size - 1)
    reply = await world.ask(world.url(), method="HEAD", headers={"User-Agent": agent})
    assert reply.status == 200
    assert reply.body == b""
    assert ("Content-Length" in reply.headers) == sized
    assert ("X-Linked-Size" in reply.headers) == sized
    assert reply.headers["ETag"] == f'"{MODEL.sha256()}"'
