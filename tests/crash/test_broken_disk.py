"""P05, P06 and P09: the disk fails, or what lies on it is not what was put there."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.crash.bench import FILES, HELD, MISS, REPO, Bench
from tests.crash.mirror import Mortal
from tests.crash.syscalls import Rule, write_rules
from tests.crash.zygote import Zygote
from tests.fakes.content import Blob, Content, digest
from tests.fakes.hub_server import HubServer
from tests.fakes.world import World, lfs
from tests.faults.bench import until
from tests.faults.client import Verdict


@pytest.mark.row(
    "P05",
    "fsync fails with EIO.",
    "The file is not published, and its bytes are fetched again, whatever a second fsync says.",
)
@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
def test_p05_what_could_not_be_synced_is_not_trusted(
    bench: Bench, tmp_path: Path, call: str
) -> None:
    # Early: before anything was synced that might be believed.
    write_rules(tmp_path / "rules", Rule([call], "m/data/spool/*.part", times=1))
    bench.clean(MISS)
    assert not bench.blob(MISS).exists()
    bench.right(MISS)
    size = FILES[MISS].size
    sent = sum(seen.sent for seen in bench.hub.requests(path=MISS))
    assert sent >= size + (1 << 20), "nothing of the first download is used"


@pytest.mark.row(
    "P06",
    "A held file cannot be read any more (EIO).",
    "The client is cut; the file goes into quarantine and is fetched again.",
)
@pytest.mark.parametrize("path", [HELD, "little.bin"])
def test_p06_a_file_that_cannot_be_read_is_fetched_again(
    bench: Bench, tmp_path: Path, path: str
) -> None:
    blob = str(bench.blob(path).relative_to(tmp_path))
    reads = ["read", "pread", "preadv", "sendfile"]
    write_rules(tmp_path / "rules", Rule(reads, blob))
    bench.clean(path)
    quarantine = bench.mirror.data / "quarantine"
    until("it is put aside", lambda: quarantine.exists() and any(quarantine.iterdir()))
    write_rules(tmp_path / "rules")
    bench.right(path)


def _flip(blob: Path) -> None:
    blob.chmod(0o600)
    with blob.open("r+b") as out:
        out.seek(500)
        out.write(b"!")


def _truncate(blob: Path) -> None:
    """With the time that it had: a backup that was cut short."""
    status = blob.stat()
    os.truncate(blob, status.st_size // 2)
    os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns))


def _directory(blob: Path) -> None:
    blob.unlink()
    (blob / "inside").mkdir(parents=True)


def _socket(blob: Path) -> None:
    blob.unlink()
    with socket.socket(socket.AF_UNIX) as planted:
        folder = os.open(blob.parent, os.O_RDONLY)
        try:  # the path itself is too long for a socket
            planted.bind(f"/proc/self/fd/{folder}/s")
        finally:
            os.close(folder)
    (blob.parent / "s").rename(blob)


def _replace(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(blob: Path) -> None:
        blob.unlink()
        make(blob)

    return damage


DAMAGES: dict[str, Callable[[Path], None]] = {
    "corrupted": _flip,
    "truncated": _truncate,
    "empty": _replace(Path.touch),
    "deleted": _replace(lambda blob: None),
    "symlink": _replace(lambda blob: blob.symlink_to("/etc/hostname")),
    "fifo": _replace(os.mkfifo),
    "socket": _socket,
    "directory": _directory,
}


SIZES = {"large": 2_000_003, "little": 1_000}
HURT: dict[str, Blob] = {
    f"{damage}-{size}.bin": Content(f"{damage} {size}", SIZES[size])
    for damage in DAMAGES
    for size in SIZES
}


@pytest.fixture
def hurt(zygote: Zygote, tmp_path: Path) -> Iterator[tuple[Mortal, HubServer]]:
    """A mirror that holds a large and a little file for each damage, and then each is damaged."""
    world = World()
    world.repo(REPO).commit({path: lfs(content) for path, content in HURT.items()})
    with HubServer(world) as hub:
        mirror = Mortal(
            tmp_path / "m", zygote, upstream=hub.url, allow=(f"{REPO}@main",),
            settings={"keep_free": "0"},
        )  # fmt: skip
        for command in ("lock", "warm"):
            status, said = mirror.run(command)
            assert status == 0, said
        for path, content in HURT.items():
            DAMAGES[path.rpartition("-")[0]](mirror.blob(digest(content)))
        yield mirror, hub
        mirror.kill()
        assert set(mirror.check_blobs()) == {digest(content).hex for content in HURT.values()}


def ask_all(mirror: Mortal) -> dict[str, Verdict]:
    with ThreadPoolExecutor(len(HURT)) as pool:
        answers = pool.map(lambda path: mirror.get(REPO, path), HURT)
        return {
            path: got.verdict(HURT[path].read(0, HURT[path].size))
            for path, got in zip(HURT, answers, strict=True)
        }


@pytest.mark.row(
    "P09",
    "A held file is corrupted, truncated, deleted, or replaced by something else.",
    "It is never served, and healed from the upstream as soon as there is one.",
)
def test_p09_a_damaged_file_is_never_served(hurt: tuple[Mortal, HubServer]) -> None:
    mirror, hub = hurt
    hub.refuse()
    assert mirror.start()
    assert set(ask_all(mirror).values()) == {Verdict.CLEAN}
    hub.listen()
    until("all are healed", lambda: set(ask_all(mirror).values()) == {Verdict.RIGHT}, 60)
    assert "Traceback" not in mirror.log


@pytest.mark.row(
    "P09",
    "A file of the store is damaged and nobody asks for it.",
    "`hubpin verify --repair` finds it and fetches it again; `hubpin gc` is not stopped by it.",
)
def test_p09_verify_repairs_what_is_damaged(hurt: tuple[Mortal, HubServer]) -> None:
    mirror, _ = hurt
    assert mirror.run("gc")[0] == 0
    for wanted in ((0, 1), (0,)):
        status, said = mirror.run("verify", "--repair")
        assert status in wanted, said
        assert "Traceback" not in said
