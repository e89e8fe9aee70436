"""A folder with an upstream on disk, and the command run in it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from proxy.cli.main import build
from proxy.tasks import demo_upstream

PAIR = f"{demo_upstream.REPO}@v1"


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of the test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    root.handlers[:], root.level = before  # the command sets up logging for its process


def hubpin(*arguments: str) -> Said:
    """Run the command in this process."""
    result = CliRunner().invoke(build(), list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Said(result.exit_code, result.stdout, result.stderr)


def process(*arguments: str) -> Said:
    """Run the command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "proxy", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    return Said(done.returncode, done.stdout, done.stderr)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def upstream(tmp_path: Path) -> demo_upstream.Laid:
    """A small model with tags v1 and v2, as an existing cache directory."""
    model = tmp_path / "model"
    (model / "1_Pooling").mkdir(parents=True)
    (model / "config.json").write_text('{"layers": 6}')
    (model / "1_Pooling" / "config.json").write_text("{}")
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (model / "model.safetensors").write_bytes(bytes(range(256)) * 2000)
    laid = demo_upstream.lay_out(model, tmp_path / "upstream")
    shutil.rmtree(model)
    return laid


@pytest.fixture
def site(place: Path, upstream: demo_upstream.Laid) -> Path:
    """A configured site that allows one pair; nothing is locked."""
    (place / "hubpin.yaml").write_text(
        f"listen: 127.0.0.1:{free_port()}\nupstreams: ['{upstream.root.as_uri()}']\nkeep_free: 0\n"
    )
    (place / "allowlist.yaml").write_text(f"allow:\n  - {PAIR}\n")
    return place
