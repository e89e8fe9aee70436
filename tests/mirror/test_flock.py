"""One holder at a time, and the kernel lets go for the dead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.errors import StoreError
from proxy.mirror import flock

_HOLD = """
import sys
from pathlib import Path
from proxy.mirror import flock
with flock.holding(Path(sys.argv[1])) as fd:
    flock.sign(fd)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    with (
        flock.holding(tmp_path / "lock"),
        pytest.raises(flock.Held),
        flock.holding(tmp_path / "lock"),
    ):
        pass


def test_a_lock_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with flock.holding(tmp_path / "lock"):
            pass


def test_many_may_share_a_lock_and_none_may_hold_it_alone_then(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with (
        flock.holding(lock, shared=True),
        flock.holding(lock, shared=True),
        pytest.raises(flock.Held),
        flock.holding(lock),
    ):
        pass
    with flock.holding(lock), pytest.raises(flock.Held), flock.holding(lock, shared=True):
        pass


def test_a_lock_that_was_refused_leaves_no_open_file(tmp_path: Path) -> None:
    with flock.holding(tmp_path / "lock"):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with pytest.raises(flock.Held), flock.holding(tmp_path / "lock"):
                pass
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert flock.signature(lock) == other.pid
        with pytest.raises(flock.Held), flock.holding(lock):
            pass
        other.kill()
        other.wait(10)
        with flock.holding(lock):
            pass


def test_a_signature_that_is_no_number_is_none(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("me")
    assert flock.signature(tmp_path / "lock") is None
    assert flock.signature(tmp_path / "nothing") is None


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError), flock.holding(tmp_path / "lock"):
        pass
    assert not (tmp_path / "elsewhere").exists()
