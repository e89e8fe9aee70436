"""Who may hold wrong bytes is remembered, durably and by every process."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.errors import StoreError
from proxy.hub.names import Digest
from proxy.mirror.misled import Misled

ONE = Digest.of_hex("1" * 64)
OTHER = Digest.of_hex("2" * 64)


def test_nobody_is_misled_at_first(tmp_path: Path) -> None:
    assert Misled(tmp_path / "misled").limit(ONE) == 0


def test_it_is_remembered_across_restarts(tmp_path: Path) -> None:
    Misled(tmp_path / "misled").add(ONE, 4096)
    again = Misled(tmp_path / "misled")
    assert again.limit(ONE) == 4096
    assert again.limit(OTHER) == 0


def test_the_highest_limit_counts(tmp_path: Path) -> None:
    misled = Misled(tmp_path / "misled")
    for limit in (10, 30, 20):
        misled.add(ONE, limit)
    assert misled.limit(ONE) == 30
    assert Misled(tmp_path / "misled").limit(ONE) == 30


def test_another_process_is_heard_at_once(tmp_path: Path) -> None:
    here, there = Misled(tmp_path / "misled"), Misled(tmp_path / "misled")
    assert here.limit(ONE) == 0
    there.add(ONE, 7)
    assert here.limit(ONE) == 7


def test_a_line_that_a_crash_cut_spoils_no_later_one(tmp_path: Path) -> None:
    file = tmp_path / "misled"
    Misled(file).add(ONE, 10)
    with file.open("a") as cut:
        cut.write("33333")
    Misled(file).add(OTHER, 20)
    assert Misled(file).limit(ONE) == 10
    assert Misled(file).limit(OTHER) == 20


@pytest.mark.parametrize("rubbish", ["", "\n\n", "zz 5\n", f"{'1' * 64}\n", f"{'1' * 64} x\n", "é"])
def test_rubbish_is_passed_over(tmp_path: Path, rubbish: str) -> None:
    file = tmp_path / "misled"
    file.write_text(f"{rubbish}\n{OTHER.hex} 5\n")
    assert Misled(file).limit(OTHER) == 5
    assert Misled(file).limit(ONE) == 0


def test_what_cannot_be_written_down_is_an_error_and_known_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "misled"
    file.mkdir()
    misled = Misled(file)
    with pytest.raises(StoreError):
        misled.add(ONE, 5)
    file.rmdir()
    assert misled.limit(ONE) == 5
    misled.add(ONE, 5)
    assert Misled(file).limit(ONE) == 5


def test_a_file_that_cannot_be_read_is_an_error_and_not_an_answer(tmp_path: Path) -> None:
    (tmp_path / "misled").mkdir()
    with pytest.raises(StoreError):
        Misled(tmp_path / "misled").limit(ONE)
