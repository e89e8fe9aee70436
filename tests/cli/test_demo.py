"""The demo, when its model and its client are installed (`make demo` does that)."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

# The demo's model and client come with `make test`; without them these tests fail.
pytestmark = pytest.mark.e2e
COMMAND = [sys.executable, "-P", "-m", "proxy", "demo"]


def processes_in(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder / "mirror") in line:
            found.append(line)
    return found


def test_the_story_works_from_beginning_to_end(tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    said = subprocess.run(
        [*COMMAND, "--keep", str(stage)], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("have the locked sha256") == 3
    assert "drifted" in said.stdout
    assert "is not on this mirror's allowlist" in said.stdout
    assert processes_in(stage) == []


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("hubpin lock", signal.SIGINT),
        ("hubpin start", signal.SIGINT),
        ("hubpin start", signal.SIGTERM),
        ("hf download", signal.SIGINT),
    ],
)
def test_an_interrupted_demo_leaves_nothing_running(
    tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    stage = tmp_path / "stage"
    demo = subprocess.Popen(
        # Who runs the tests in the background may have them ignore SIGINT, and children inherit it.
        ["env", "--default-signal=INT", *COMMAND, "--keep", str(stage)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PYTHONUNBUFFERED": "1"},
    )
    assert demo.stdout is not None
    with demo.stdout:
        for line in demo.stdout:
            if f"$ {moment}" in line:
                demo.send_signal(number)
                break
        demo.stdout.read()
    assert demo.wait(60) == 128 + number
    assert processes_in(stage) == []
