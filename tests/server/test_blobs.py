"""What the next tier and the auditor read: the lock, blobs by digest, SHA256SUMS."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from pathlib import Path

from proxy.pins import lock as locks
from tests.fakes.content import Content
from tests.server.world import FILES, MODEL, World

WHOLE = MODEL.read(0, MODEL.size)


async def test_the_lock_is_served_as_it_is_in_force(world: World) -> None:
    reply = await world.ask("/-/lock")
    assert reply.body == world.config.lock.read_bytes()
    assert locks.loads(reply.body) == world.mirror.catalog.lock


async def test_sha256sum_accepts_the_sums_and_they_are_the_fingerprint(
    world: World, tmp_path: Path
) -> None:
    reply = await world.ask("/-/sums/acme/tiny@main")
    snapshot = world.mirror.catalog.snapshot(world.entry().repo, "main")
    assert "sha256:" + hashlib.sha256(reply.body).hexdigest() == snapshot.fingerprint
    assert reply.headers["X-Fingerprint"] == snapshot.fingerprint
    folder = tmp_path / "downloaded"
    for path, file in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(file.content.read(0, file.size))
    (folder / "SHA256SUMS").write_bytes(reply.body)
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    await asyncio.to_thread(subprocess.run, command, cwd=folder, check=True)


async def test_sums_of_what_is_not_allowed_are_refused(world: World) -> None:
    assert (await world.ask("/-/sums/acme/other@main")).code == "RepoNotFound"
    assert (await world.ask("/-/sums/acme/tiny@v9")).code == "RevisionNotFound"


async def test_a_blob_is_served_by_its_digest(world: World) -> None:
    url = f"/-/blobs/sha256/{world.entry().digest.hex}"
    for _ in range(2):  # fetched, held
        reply = await world.ask(url)
        assert reply.body == WHOLE
    part = await world.ask(url, headers={"Range": "bytes=10-19"})
    assert (part.status, part.body) == (206, WHOLE[10:20])
    head = await world.ask(url, method="HEAD")
    assert head.length == MODEL.size


async def test_a_blob_that_no_served_file_has_is_not_there(world: World) -> None:
    """Also if it is held: what was taken off the allowlist is not served by another door."""
    other = world.hub.publish("acme/other", "x.bin", Content("secret", 1000))
    await world.mirror.cache.hold(other)
    reply = await world.ask(f"/-/blobs/sha256/{other.digest.hex}")
    assert (reply.status, reply.code) == (404, "EntryNotFound")


async def test_our_own_pages_are_read_only(world: World) -> None:
    for target in ("/-/status", "/-/lock", "/metrics", "/"):
        reply = await world.ask(target, method="POST", body=b"x")
        assert reply.status in (403, 405), target
    assert (await world.ask("/-/nothing")).status == 404


async def test_the_list_of_files_has_what_a_device_needs(world: World) -> None:
    lines = (await world.ask("/-/files/acme/tiny@main")).body.decode().splitlines()
    snapshot = world.mirror.catalog.snapshot(world.entry().repo, "main")
    assert lines[0] == "# hubpin-files 1"
    assert f"# commit {snapshot.commit}" in lines
    assert f"# fingerprint {snapshot.fingerprint}" in lines
    assert "# ref main" in lines
    rows = [line.split(" ", 3) for line in lines if not line.startswith("#")]
    sums = "".join(f"{digest}  {path}\n" for digest, _, _, path in rows)
    assert sums == locks.sums(snapshot.files.values())
    entries = [snapshot.files[path] for *_, path in rows]
    assert [(one.etag, str(one.size)) for one in entries] == [(row[1], row[2]) for row in rows]


async def test_the_list_of_files_of_what_is_not_allowed_is_refused(world: World) -> None:
    assert (await world.ask("/-/files/acme/other@main")).code == "RepoNotFound"
    assert (await world.ask("/-/files/acme/tiny@v9")).code == "RevisionNotFound"
