"""deploy/hubpin.service is a unit that systemd takes, and locks the server in."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.engines import engine
from tests.deploy.fronts import DEPLOY

_PROGRAM = "/opt/hubpin/bin/hubpin"
# systemd's own scale: 10 is open, 0 is shut; most services that Debian ships are above 9.
_MOST_EXPOSED = 1.6


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The sample, with the program of this environment."""
    text = (DEPLOY / "hubpin.service").read_text()
    file = tmp_path / "hubpin.service"
    file.write_text(text.replace(_PROGRAM, str(Path(sys.executable).with_name("hubpin"))))
    return file


def test_systemd_finds_no_fault_with_it(unit: Path) -> None:
    done = _analyze("verify", "--man=no", str(unit))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_it_exposes_little(unit: Path) -> None:
    done = _analyze("security", "--offline=true", "--no-pager", str(unit))
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert level is not None, done.stderr
    assert float(level[1]) <= _MOST_EXPOSED, done.stdout


def test_it_runs_a_command_that_there_is() -> None:
    (line,) = re.findall(r"(?m)^ExecStart=(.*)$", (DEPLOY / "hubpin.service").read_text())
    program, *arguments = line.split()
    assert (program, arguments[-1]) == (_PROGRAM, "serve")
    done = subprocess.run(
        [sys.executable, "-m", "proxy", *arguments, "--help"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_wrong_configuration_ends_it_with_the_status_that_is_not_tried_again(
    tmp_path: Path,
) -> None:
    wrong = tmp_path / "hubpin.yaml"
    wrong.write_text("listne: 127.0.0.1:1\n")
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "-c", str(wrong), "serve"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    text = (DEPLOY / "hubpin.service").read_text()
    assert f"RestartPreventExitStatus={done.returncode}\n" in text


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [engine("systemd-analyze"), *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
