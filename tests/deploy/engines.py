"""Programs that the samples of deploy/ are for; what is not there is installed, once."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SBIN = ("/usr/sbin", "/sbin", "/usr/local/sbin")
# program → Debian's package of it
_PACKAGES = {
    "haproxy": "haproxy",
    "nginx": "nginx-light",
    "promtool": "prometheus",
    "systemd-analyze": "systemd",
}
_APT_S = 300
_POLICY = Path("/usr/sbin/policy-rc.d")


def engine(name: str) -> str:
    """Where the program is. Raises: RuntimeError, if it is not there and cannot be installed."""
    found = _find(name)
    if found is None:
        _install(_PACKAGES[name])
        found = _find(name)
    if found is None:
        raise RuntimeError(f"{_PACKAGES[name]} is installed, and has no {name}")
    return found


def _find(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *_SBIN)))


def _install(package: str) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(f"these tests need {package}: sudo apt-get install {package}")
    with _no_services():
        if _apt("install", "-y", "--no-install-recommends", package) == 0:
            return
        _apt("update")
        if _apt("install", "-y", "--no-install-recommends", package) != 0:
            raise RuntimeError(f"apt-get install {package} failed")


def _apt(*arguments: str) -> int:
    done = subprocess.run(
        ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        timeout=_APT_S, check=False,
    )  # fmt: skip
    return done.returncode


@contextmanager
def _no_services() -> Iterator[None]:
    """Debian starts a server as soon as it is installed, unless this script says no: 101."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
