"""P04 and P08: the disk is full, or may only be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.bench import HELD, MISS, Bench
from tests.crash.disks import Disk, small_disk
from tests.crash.syscalls import CHANGES, Rule, write_rules

FULL = 507


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", 48 << 20) as disk:
        yield disk


@pytest.fixture
def data(disk: Disk) -> Path:
    return disk.folder / "data"


@pytest.mark.row(
    "P04",
    "The disk is full when a file has to be fetched.",
    "Hits are served, misses get 507 with a sentence; when there is room it goes on by itself.",
)
@pytest.mark.parametrize("leave", [0, 4096, 1 << 20, 19 << 20])
def test_p04_a_full_disk_costs_misses_only(bench: Bench, disk: Disk, leave: int) -> None:
    disk.fill(leave)
    for _ in range(3):
        bench.right(HELD, "little.bin")
        bench.clean(MISS, FULL)
    assert disk.free >= min(leave, 4096), "a refused file takes no room"
    disk.empty()
    bench.right(MISS, "miss-small.bin", HELD)


@pytest.mark.row(
    "P04",
    "The disk is full before the server starts.",
    "It starts, serves what is held, and goes on when there is room.",
)
def test_p04_it_starts_on_a_disk_without_a_byte_free(bench: Bench, disk: Disk) -> None:
    bench.mirror.kill()
    (bench.mirror.data / "instance.lock").unlink()
    (bench.mirror.data / "CACHEDIR.TAG").unlink()
    disk.fill()
    assert bench.mirror.start(), bench.mirror.log
    bench.right(HELD)
    bench.clean(MISS, FULL)
    disk.empty()
    bench.right(MISS)


@pytest.mark.row(
    "P04",
    "There is no room for what belongs to a file: its sidecar, its folder, the list of the misled, "
    "the index.",
    "Hits are served, misses are clean, and nothing of it lasts.",
)
@pytest.mark.parametrize(
    "rule",
    [
        Rule(["write"], "disk/data/spool/*.tmp", "ENOSPC"),
        Rule(["open"], "disk/data/spool/*.tmp", "ENOSPC"),
        Rule(["rename"], "disk/data/spool/*.json", "ENOSPC"),
        Rule(["open"], "disk/data/spool/*.part", "ENOSPC"),
        Rule(["pwrite"], "disk/data/spool/*.part", "ENOSPC"),
        Rule(["mkdir"], "disk/data/blobs-v1/*", "ENOSPC"),
        Rule(["rename"], "disk/data/blobs-v1/*", "ENOSPC"),
        Rule(["mkdir", "open", "write"], "disk/data/index-v1*", "ENOSPC"),
    ],
    ids=lambda rule: f"{rule.calls[0]} {rule.path.rpartition('/')[2]}",
)
def test_p04_no_room_for_what_belongs_to_it(bench: Bench, tmp_path: Path, rule: Rule) -> None:
    write_rules(tmp_path / "rules", rule)
    for _ in range(2):
        if "index" in rule.path:
            bench.right("miss-small.bin")
        elif rule.path.endswith((".tmp", ".json")):
            bench.right("miss-small.bin")  # nobody is shown any of it early, so it has no sidecar
            bench.clean(MISS)
        else:
            bench.clean("miss-small.bin", FULL)
            bench.clean(MISS)
        bench.right(HELD)
    write_rules(tmp_path / "rules")
    bench.right("miss-small.bin", MISS, HELD)


@pytest.mark.row(
    "P08",
    "The file system becomes read-only while the server runs.",
    "Hits are served, misses are clean; it goes on when the disk may be written again.",
)
def test_p08_a_read_only_disk_costs_misses_only(bench: Bench, tmp_path: Path) -> None:
    # As after an error (mount option errors=remount-ro): by hand, the kernel refuses to do it to
    # files that are open for writing.
    write_rules(tmp_path / "rules", Rule(CHANGES, "disk/*", "EROFS"))
    for _ in range(2):
        bench.right(HELD, "little.bin")
        bench.clean(MISS, 500, 507)
    write_rules(tmp_path / "rules")
    bench.right(MISS, HELD)
