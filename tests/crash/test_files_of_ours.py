"""P10, P11 and P12: broken files of our own, wrong clocks, and two servers on one directory."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.crash.bench import HELD, MISS, Bench
from tests.faults.bench import until

YEAR_S = 365 * 86_400.0
GARBAGE = b"\0\xff{[garbage\n" * 50


@pytest.mark.row(
    "P10",
    "The lock is broken, half written, or from a future version when the server starts.",
    "It does not start, says which file and why, and leaves the file alone.",
)
@pytest.mark.parametrize("kind", ["garbage", "half", "future", "empty"])
def test_p10_a_broken_lock_is_named(idle: Bench, kind: str) -> None:
    lock = idle.mirror.lock
    good = lock.read_bytes()
    bad = {
        "garbage": GARBAGE,
        "half": good[: len(good) // 2],
        "future": good.replace(b'"version": 1', b'"version": 2'),
        "empty": b"",
    }[kind]
    lock.write_bytes(bad)
    assert not idle.mirror.start()
    assert idle.mirror.status == 2
    assert str(lock) in idle.mirror.log
    assert lock.read_bytes() == bad
    lock.write_bytes(good)
    assert idle.mirror.start()
    idle.right(HELD)


@pytest.mark.row(
    "P10",
    "The lock or the allowlist breaks while the server runs.",
    "The one that it has read stays in force.",
)
def test_p10_a_lock_that_breaks_later_changes_nothing(bench: Bench) -> None:
    bench.mirror.lock.write_bytes(GARBAGE)
    until("it was read", lambda: "keeping the previous catalog" in bench.mirror.log)
    bench.right(HELD, MISS)


@pytest.mark.row(
    "P10",
    "Sidecars, the list of the misled, the index, the scrub's place or the lock files are broken.",
    "The server starts, serves what it holds, and fetches what it does not.",
)
@pytest.mark.parametrize("content", [GARBAGE, b"", b"{}", b'{"size": 1e999, "exposed": 1e999}'])
def test_p10_what_can_be_made_anew_stops_nothing(idle: Bench, content: bytes) -> None:
    assert idle.mirror.start()
    idle.right(HELD)
    idle.mirror.kill()
    spool = idle.mirror.data / "spool"
    part = spool / f"{idle.blob(MISS).name}.part"
    part.write_bytes(b"x" * 1000)
    part.with_suffix(".json").write_bytes(content)
    for name in ("ours-not.json", "strange.part", "more.tmp"):
        (spool / name).write_bytes(content)
    for name in ("misled", "scrub.json", "server.json", "instance.lock", "gc.lock"):
        (idle.mirror.data / name).write_bytes(content)
    for file in (idle.mirror.data / "index-v1").glob("*"):
        file.write_bytes(content)
    assert idle.mirror.start(), idle.mirror.log
    idle.right(HELD, MISS)
    idle.mirror.kill()
    assert idle.mirror.run("gc")[0] == 0


@pytest.mark.row(
    "P11",
    "The clock is ten years ahead, a year behind, or jumps while the server runs.",
    "Nothing depends on it.",
)
@pytest.mark.parametrize("first", [0.0, 10 * YEAR_S, -YEAR_S])
@pytest.mark.parametrize("then", [0.0, 10 * YEAR_S, -30 * YEAR_S])
def test_p11_a_wrong_clock_changes_nothing(
    idle: Bench, tmp_path: Path, first: float, then: float
) -> None:
    clock = tmp_path / "clock"
    clock.write_text(str(first))
    assert idle.mirror.start(clock_file=str(clock))
    idle.right(HELD)
    clock.write_text(str(then))
    idle.right(HELD, "little.bin", "miss-small.bin")
    status, said = idle.mirror.run("gc", clock_file=str(clock))
    assert status == 0, said
    idle.hub.refuse()
    idle.right(HELD, "little.bin", "miss-small.bin")
    status, said = idle.mirror.run("verify", clock_file=str(clock))
    assert status == 0, said
    assert idle.mirror.said()["ready"] is True


@pytest.mark.row(
    "P11",
    "The times of all files are changed, as by a backup.",
    "They are hashed before they are served, and none is fetched again.",
)
@pytest.mark.parametrize("moment", [time.time() + 10 * YEAR_S, 1.0])
def test_p11_files_with_other_times_are_served(bench: Bench, moment: float) -> None:
    for path in bench.mirror.data.rglob("*"):
        os.utime(path, (moment, moment))
    bench.hub.refuse()
    bench.right(HELD, "little.bin")


@pytest.mark.row(
    "P12",
    "A second server is started on the same directory.",
    "It says who is there and ends with status 2; the first one serves on.",
)
def test_p12_a_second_server_refuses(bench: Bench) -> None:
    status, said = bench.mirror.run("serve")
    assert status == 2
    assert str(bench.mirror.pid) in said
    assert "already serving" in said
    bench.right(HELD, MISS)
