"""The audit log: every event once, whole lines, whatever the disk does."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from proxy.telemetry import audit as logs
from proxy.telemetry.audit import Audit, Fetched, Gap, Refused, Rules, Served


def served(path: str = "model.bin", device: str = "10.0.8.17") -> Served:
    return Served(
        device=device, request="r-1", agent="curl", repo="org/m", commit="a" * 40, path=path,
        digest="sha256:" + "0" * 64, size=10, start=0, stop=10, sent=10, complete=True,
    )  # fmt: skip


def lines(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for file in logs.files(folder) for line in file.read_text().splitlines()
    ]


def paths(folder: Path) -> list[str]:
    return [line["path"] for line in lines(folder)]


def test_events_are_lines_of_json_in_their_order(tmp_path: Path) -> None:
    audit = Audit(tmp_path)
    for number in range(2500):
        audit.note(served(f"{number}"))
    audit.note(Fetched("org/m", "a" * 40, "x", "sha256:0", 3, source="hub", seconds=0.5))
    audit.close()
    held = lines(tmp_path)
    assert [line["path"] for line in held[:2500]] == [str(number) for number in range(2500)]
    assert held[-1]["event"] == "fetched"
    assert held[0]["event"] == "served"
    assert held[0]["at"].endswith("Z")
    assert (tmp_path / logs.NAME).stat().st_mode & 0o777 == 0o600


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    audit = Audit(None)
    audit.note(served())
    assert audit.flush()
    assert os.listdir(tmp_path) == []


def test_a_file_of_some_size_makes_room_for_the_next(tmp_path: Path) -> None:
    audit = Audit(tmp_path, Rules(size=1, keep=2))
    for number in range(4):
        audit.note(served(f"{number}"))
        audit.flush()
    audit.close()
    assert paths(tmp_path) == ["2", "3"]


def test_two_processes_take_turns(tmp_path: Path) -> None:
    """Here two logs of one process; the kernel's lock does not care."""
    both = [Audit(tmp_path, Rules(size=2000, keep=0, sync=False)) for _ in range(2)]

    def write(audit: Audit) -> None:
        for number in range(50):
            audit.note(served(f"{number}"))
            audit.flush()

    threads = [threading.Thread(target=write, args=(one,)) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in both:
        one.close()
    assert sorted(paths(tmp_path)) == sorted([str(number) for number in range(50)] * 2)


def test_a_full_disk_fails_nobody_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    full = [True]

    def write(fd: int, data: bytes) -> int:
        if full[0]:
            real(fd, data[:7])  # half a line fits
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    audit = Audit(tmp_path)
    monkeypatch.setattr(os, "write", write)
    audit._waiting.append((0.0, served("early")))
    assert not audit.flush()
    assert (tmp_path / logs.NAME).read_bytes() == b""
    full[0] = False
    audit._waiting.append((1.0, served("late")))
    assert audit.flush()
    assert paths(tmp_path) == ["early", "late"]


def test_what_memory_does_not_hold_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_MOST", 2)
    audit = Audit(tmp_path)
    audit._bell.set()  # nobody writes meanwhile
    for number in range(5):
        audit.note(served(f"{number}"))
    assert audit.flush()
    assert [line.get("path") for line in lines(tmp_path)] == ["0", "1", None]
    assert lines(tmp_path)[-1]["event"] == Gap.__name__.lower()
    assert lines(tmp_path)[-1]["lost"] == 3


def test_half_a_line_of_a_crash_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / logs.NAME).write_text('{"at": "2026-')
    audit = Audit(tmp_path)
    audit.note(served())
    audit.close()
    assert (tmp_path / logs.NAME).read_text().splitlines()[0] == '{"at": "2026-'
    assert json.loads((tmp_path / logs.NAME).read_text().splitlines()[1])["event"] == "served"


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / logs.NAME).symlink_to(tmp_path / "elsewhere")
    audit = Audit(tmp_path)
    audit._waiting.append((0.0, served()))
    assert not audit.flush()
    assert not (tmp_path / "elsewhere").exists()


def test_a_pseudonym_is_the_same_each_time_and_another_one_elsewhere(tmp_path: Path) -> None:
    here, there = tmp_path / "a", tmp_path / "b"
    for folder in (here, there):
        folder.mkdir()
        audit = Audit(folder, Rules(pseudonyms=True))
        audit.note(served())
        audit.note(Refused("10.0.8.17", "r", "curl", "GET", "/x", 404, "RepoNotAllowed", "no"))
        audit.close()
        assert b"10.0.8" not in (folder / logs.NAME).read_bytes()
    one, two = (line["device"] for line in lines(here))
    assert one == two == logs.pseudonym(here, "10.0.8.17")
    assert logs.pseudonym(there, "10.0.8.17") != one
    assert (here / "audit.key").stat().st_mode & 0o777 == 0o600
