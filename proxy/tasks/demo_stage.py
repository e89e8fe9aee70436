"""The stage of the demo: folders, a port, and commands in processes of their own.

Devices get an environment of their own, so that nothing of this machine leaks into them.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

from proxy.errors import MirrorError, StoreError
from proxy.hub.names import Pair
from proxy.pins import lock as locks
from proxy.pins.lock import Pin
from proxy.tasks.demo_upstream import REPO

_NEEDED = 1_000_000_000  # bytes of disk, for an upstream, a mirror and three devices
_DEADLINE_S = 600.0  # for any one command


@dataclass(frozen=True, slots=True)
class Running:
    """Somebody typed a command."""

    command: str
    who: str


@dataclass(frozen=True, slots=True)
class Ran:
    """A command has ended; what it said."""

    command: str
    output: tuple[str, ...]
    status: int
    took_s: float


@dataclass(frozen=True, slots=True)
class Command:
    """A command with the environment of who runs it; None is the one of this process."""

    who: str
    shown: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] | None


@dataclass(slots=True)
class Stage:
    """Where it plays."""

    root: Path
    upstream: str  # "" for the one that we make
    settings: Mapping[str, str]  # of a device, but for HF_ENDPOINT
    hf: str
    port: int

    @property
    def site(self) -> Path:
        return self.root / "mirror"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pair(self) -> Pair:
        return Pair(f"{REPO}@{'main' if self.upstream else 'v1'}")

    def pin(self) -> Pin:
        return locks.load(self.site / "allowlist.lock").pins[self.pair]


def hubpin(stage: Stage, *arguments: str) -> Command:
    command = (sys.executable, "-P", "-m", "proxy", "-c", str(stage.site / "hubpin.yaml"))
    # The real Hub may be reachable only by what this shell has set; nothing else needs it.
    clean = None if stage.upstream else _environment(stage.root)
    shown = " ".join(("hubpin", *arguments))
    return Command("admin", shown, (*command, *arguments), clean)


def hf(stage: Stage, device: str, *arguments: str) -> Command:
    home = stage.root / device
    home.mkdir(exist_ok=True)
    environment = {
        **_environment(home),
        **stage.settings,
        "HF_ENDPOINT": stage.url,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_COLOR": "1",
    }
    shown = " ".join(("hf", *arguments))
    return Command(device, shown, (stage.hf, *arguments), environment)


def _environment(home: Path) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "COLUMNS": "200",
    }


async def run(command: Command) -> Ran:
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command.arguments,
        env=command.environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_DEADLINE_S):
            said, _ = await process.communicate()
    except TimeoutError as e:
        raise MirrorError(f"`{command.shown}` did not end within {_DEADLINE_S:g} s") from e
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(SIGTERM)
            await process.wait()
    lines = tuple(said.decode("utf-8", "replace").rstrip().splitlines())
    return Ran(command.shown, lines, process.returncode or 0, time.monotonic() - began)


# --- the ground ----------------------------------------------------------------------------------


@contextlib.contextmanager
def folder(keep: Path | None) -> Iterator[Path]:
    """A new folder: `keep`, which stays, or one that goes away at the end."""
    try:
        if keep is not None:
            keep.mkdir(parents=True)
            root = keep.resolve()
        else:
            root = Path(tempfile.mkdtemp(prefix="hubpin-demo-"))
        free = shutil.disk_usage(root).free
    except OSError as e:
        raise StoreError(f"cannot make a folder for the demo: {e}") from e
    try:
        if free < _NEEDED:
            raise StoreError(f"the demo needs {_NEEDED:,} bytes of disk; {root} has {free:,}")
        yield root
    finally:
        if keep is None:
            shutil.rmtree(root, ignore_errors=True)


def find_client() -> str:
    """The `hf` command beside our own Python, else on the PATH."""
    found = shutil.which("hf", path=str(Path(sys.executable).parent)) or shutil.which("hf")
    if found is None:
        raise MirrorError("the demo needs the stock client: pip install 'hubpin[demo]'")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
