"""Clients that are no Python libraries: programs of the system, Node packages and a browser.

Programs come from Debian; what is missing is installed. Node packages have the exact versions of
js/package.json and live in `.clients/js/`. A client that cannot be had is a failure, not a skip.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e import clients
from tests.e2e.device import Ended

# program → the Debian package that has it
PROGRAMS = {
    "aria2c": "aria2", "wget": "wget", "curl": "curl", "git": "git", "git-lfs": "git-lfs",
    "ip": "iproute2", "dash": "dash",
    "busybox": "busybox", "shellcheck": "shellcheck", "strace": "strace",
    "chromium": "chromium", "node": "nodejs", "npm": "npm",
}  # fmt: skip
_HERE = Path(__file__).parent
_AGENT = _HERE / "js" / "agent.mjs"
_MODULES = clients.HOME / "js"
_APT_S = 600
_NPM_S = 600
_RUN_S = 60.0


def ensure_programs(names: Sequence[str] = tuple(PROGRAMS)) -> None:
    """Returns when all of them are there. Raises: RuntimeError, with what apt said."""
    missing = [name for name in names if shutil.which(name) is None]
    if not missing:
        return
    with _Guard("apt"):
        packages = [PROGRAMS[name] for name in missing if shutil.which(name) is None]
        for command in (["update", "-qq"], ["install", "-qq", "-y", *packages]):
            _insist(["apt-get", *command], _APT_S, DEBIAN_FRONTEND="noninteractive")
    still = [name for name in missing if shutil.which(name) is None]
    if still:
        raise RuntimeError(f"no {', '.join(still)} on this machine")


def ensure_node_packages() -> None:
    """Raises: RuntimeError, with what npm said."""
    ensure_programs(("node", "npm"))
    wanted = (_HERE / "js" / "package.json").read_text()
    with _Guard("js"):
        stamp = _MODULES / ".ready"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        shutil.rmtree(_MODULES, ignore_errors=True)
        _MODULES.mkdir()
        (_MODULES / "package.json").write_text(wanted)
        # Scripts of packages would fetch further programs from elsewhere.
        _insist(
            ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock",
             "--prefix", str(_MODULES)],
            _NPM_S,
        )  # fmt: skip
        stamp.write_text(wanted)


def run(
    *command: str | Path, home: Path, prefix: Sequence[str] = (), stdin: str = "",
    variables: Mapping[str, str] | None = None,
) -> Ended:  # fmt: skip
    """A program in `home` with nobody's settings; `prefix` is put before the command."""
    done = subprocess.run(
        [*prefix, *map(str, command)],
        input=stdin, capture_output=True, text=True, errors="replace", cwd=home,
        env=environment(home, variables or {}), timeout=_RUN_S, check=False,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


def environment(home: Path, variables: Mapping[str, str]) -> dict[str, str]:
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        **variables,
    }


def node(
    home: Path, *calls: tuple[str, Mapping[str, object]], prefix: Sequence[str] = ()
) -> list[object]:
    """What these calls of js/agent.mjs gave, in order; one that failed fails the test."""
    given = [{"call": name, "with": arguments} for name, arguments in calls]
    done = run("node", _AGENT, _MODULES, home / "js-cache", home=home, prefix=prefix,
               stdin=json.dumps(given))  # fmt: skip
    assert done.status == 0, done.stderr
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert not [one["error"] for one in outcomes if "error" in one], done.stderr
    return [one.get("value") for one in outcomes]


class _Guard:
    """Held while something is installed, so that two test runs do not do it twice."""

    def __init__(self, name: str) -> None:
        clients.HOME.mkdir(exist_ok=True)
        self._file = (clients.HOME / f"{name}.lock").open("w")

    def __enter__(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _insist(command: list[str], timeout_s: float, **variables: str) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        text=True, timeout=timeout_s, check=False, env={**os.environ, **variables},
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:3])} ended with {done.returncode}\n{done.stdout}")
