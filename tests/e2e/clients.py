"""Environments with real clients, one per version, made on first use and kept.

.clients/<name>/           a virtual environment
.clients/<name>/.ready     what was installed; an environment without it is made anew
.clients/<name>.lock       held while it is made, so that two test runs do not make it twice
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HOME = Path(__file__).parents[2] / ".clients"
_PIP_S = 900  # for one environment, on a slow line
_XET = "hf-xet==1.8.0"

# name → what is installed. The library that speaks HTTP is pinned too: it decides how a broken
# connection looks to the client.
CLIENTS: dict[str, tuple[str, ...]] = {
    "hub-2.4.0": ("huggingface_hub==2.4.0", _XET, "httpx2==2.16.2"),
    "hub-1.33.0": ("huggingface_hub==1.33.0", _XET, "httpx==0.28.1"),
    "hub-0.36.2": ("huggingface_hub==0.36.2", _XET, "requests==2.34.2", "urllib3==2.8.0"),
    "hub-0.25.2": ("huggingface_hub==0.25.2", "requests==2.34.2", "urllib3==2.8.0"),
}
HUBS = tuple(CLIENTS)
WARNING_HUBS = ("hub-2.4.0", "hub-1.33.0")  # print X-HF-Warning


def ensure(names: Iterable[str]) -> None:
    """Returns when all of them are there. Raises: RuntimeError, with what pip said."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(_ensure, sorted(set(names))))


def program(name: str, command: str = "python") -> Path:
    """A program of an environment that is there."""
    return HOME / name / "bin" / command


def _ensure(name: str) -> None:
    HOME.mkdir(exist_ok=True)
    with (HOME / f"{name}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        wanted = "\n".join([f"python {sys.version}", *CLIENTS[name], ""])
        folder = HOME / name
        stamp = folder / ".ready"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        shutil.rmtree(folder, ignore_errors=True)
        _run(name, "-m", "venv", "--without-pip", str(folder))
        # Modules are compiled when they are imported: most of them never are.
        _run(name, "-m", "pip", "--python", str(folder), "install", "--no-compile", *CLIENTS[name])
        stamp.write_text(wanted)


def _run(name: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        text=True, timeout=_PIP_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(
            f"the client environment {name} cannot be made: {' '.join(arguments[:3])} "
            f"ended with {done.returncode}\n{done.stdout}"
        )
