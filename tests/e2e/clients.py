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
_REQUESTS = ("requests==2.34.2", "urllib3==2.8.0")

# name → what is installed. The library that speaks HTTP is pinned too: it decides how a broken
# connection looks to the client.
CLIENTS: dict[str, tuple[str, ...]] = {
    "hub-2.4.0": ("huggingface_hub==2.4.0", _XET, "httpx2==2.16.2"),
    "hub-1.33.0": ("huggingface_hub==1.33.0", _XET, "httpx==0.28.1"),
    "hub-0.36.2": ("huggingface_hub==0.36.2", _XET, *_REQUESTS),
    "hub-0.25.2": ("huggingface_hub==0.25.2", *_REQUESTS),
    # The ends and the turning point of what is in use, for what every version has to do.
    "hub-1.0.1": ("huggingface_hub==1.0.1", _XET, "httpx==0.28.1"),
    "hub-0.20.3": ("huggingface_hub==0.20.3", *_REQUESTS),
    "hf-2.3.0": ("huggingface_hub==2.3.0", _XET, "httpx2==2.16.2"),
    # torch is a build for CPUs; another version would bring gigabytes for GPUs.
    "transformers-5.23.0": (
        "torch==2.13.0", "transformers==5.23.0", "huggingface_hub==2.4.0", _XET, "httpx2==2.16.2",
    ),
    "transformers-4.57.6": ("transformers==4.57.6", "huggingface_hub==0.36.2", _XET, *_REQUESTS),
    "sentence-transformers-6.2.0": ("sentence-transformers==6.2.0",),
    "diffusers-0.42.1": ("diffusers==0.42.1", *_REQUESTS),
    "arrow": ("pyarrow==26.0.1", "pandas==2.3.3", "numpy==2.4.6"),
    "datasets-5.2.0": ("datasets==5.2.0", "huggingface_hub==2.4.0", _XET, "httpx2==2.16.2"),
    "datasets-4.8.5": (
        "datasets==4.8.5", "huggingface_hub==1.33.0", _XET, "httpx==0.28.1", *_REQUESTS,
    ),
    "datasets-2.19.2": ("datasets==2.19.2", "huggingface_hub==0.25.2", *_REQUESTS),
}  # fmt: skip
# name → the environment whose libraries it finds after its own: what is large is there once.
SHARED = {
    "sentence-transformers-6.2.0": "transformers-5.23.0",
    "diffusers-0.42.1": "transformers-5.23.0",
    "datasets-5.2.0": "arrow",
    "datasets-4.8.5": "arrow",
    "datasets-2.19.2": "arrow",
}
HUBS = ("hub-2.4.0", "hub-1.33.0", "hub-0.36.2", "hub-0.25.2")
ALL_HUBS = (*HUBS, "hub-1.0.1", "hub-0.20.3")
TRANSFORMERS = ("transformers-5.23.0", "transformers-4.57.6")
DATASETS = ("datasets-5.2.0", "datasets-4.8.5", "datasets-2.19.2")
WARNING_HUBS = ("hub-2.4.0", "hub-1.33.0")  # print X-HF-Warning


def ensure(names: Iterable[str]) -> None:
    """Returns when all of them are there. Raises: RuntimeError, with what pip said."""
    wanted = set(names)
    shared = {SHARED[name] for name in wanted if name in SHARED}
    # More than processors: pip waits for the line most of the time. The large ones come first.
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        list(pool.map(_ensure, [*sorted(shared), *sorted(wanted - shared)]))


def program(name: str, command: str = "python") -> Path:
    """A program of an environment that is there."""
    return HOME / name / "bin" / command


def _ensure(name: str) -> None:
    HOME.mkdir(exist_ok=True)
    base = SHARED.get(name)
    if base is not None:
        _ensure(base)
    with (HOME / f"{name}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        needs = (*CLIENTS[base], *CLIENTS[name]) if base else CLIENTS[name]
        wanted = "\n".join([f"python {sys.version}", *needs, ""])
        folder = HOME / name
        stamp = folder / ".ready"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        shutil.rmtree(folder, ignore_errors=True)
        _run(name, "-m", "venv", "--without-pip", str(folder))
        if base is not None:
            (_libraries(name) / "shared.pth").write_text(f"{_libraries(base)}\n")
        # Modules are compiled when they are imported: most of them never are.
        _run(name, "-m", "pip", "--python", str(folder), "install", "--no-compile", *CLIENTS[name])
        stamp.write_text(wanted)


def _libraries(name: str) -> Path:
    return HOME / name / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


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
