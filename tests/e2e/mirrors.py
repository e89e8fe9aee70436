"""A mirror in a process of its own, as an operator runs it: a folder with three files."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.device import Ended, until
from tests.fakes.rawclient import Answer

CONTACT = "ml-platform, ext. 4711"
_ROOT = Path(__file__).parents[2]
_START_S = 30.0
_STOP_S = 30.0


class MirrorProcess:
    """Started, stopped, killed and started again on the same data and the same port."""

    def __init__(
        self, folder: Path, upstream: str, allow: Sequence[str], *, module: str = "proxy",
        redirect_hosts: str = "127.0.0.2", token_file: Path | None = None,
    ) -> None:  # fmt: skip
        """`allow` are the lines of the list in allowlist.yaml; `module` is what is run."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.module = module
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        token = f"    token_file: {token_file}\n" if token_file else ""
        self.config.write_text(
            f"listen: 127.0.0.1:{self.port}\n"
            f"contact: {CONTACT!r}\n"
            "keep_free: 1MiB\n"
            f"upstreams:\n  - url: {upstream}\n    redirect_hosts: [{redirect_hosts}]\n{token}"
        )
        self.allow(*allow)

    # --- what it is made of ---

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        return self.folder / "hubpin.yaml"

    @property
    def allowlist(self) -> Path:
        return self.folder / "allowlist.yaml"

    @property
    def lock(self) -> Path:
        return self.folder / "allowlist.lock"

    @property
    def data(self) -> Path:
        return self.folder / "hubpin-data"

    @property
    def log(self) -> str:
        """Of every start so far."""
        file = self.folder / "mirror.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def allow(self, *lines: str) -> None:
        """Rewrite allowlist.yaml, in place as editors do."""
        self.allowlist.write_text("allow:\n" + "".join(f"  - {line}\n" for line in lines))

    def blobs(self) -> set[str]:
        """The sha256 of every blob that it holds."""
        return {path.name for path in (self.data / "blobs-v1").rglob("*") if path.is_file()}

    # --- its life ---

    def start(self) -> None:
        """Returns once it is ready."""
        with (self.folder / "mirror.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command("serve"), cwd=_ROOT, env=_environment(),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        until("the mirror is ready", self._is_ready, timeout_s=_START_S)

    def stop(self) -> None:
        """Ask it to end, and insist that it ends well. Stopping twice is fine."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        try:
            status = process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the mirror does not stop\n{self.log}") from None
        assert status == 0, f"the mirror ended with {status}\n{self.log}"

    def kill(self) -> None:
        """As a power cut ends it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def command(self, *arguments: str) -> Ended:
        """Run `hubpin` with the same configuration."""
        done = subprocess.run(
            self._command(*arguments), cwd=_ROOT, env=_environment(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)

    def lock_all(self) -> None:
        done = self.command("lock")
        assert done.status == 0, done.stderr

    # --- what it says ---

    def status(self) -> Any:
        return Answer(f"{self.url}/-/status").json

    def wait_locked(self, *pairs: str) -> None:
        """Until these pairs (none: all that are allowed) are locked."""

        def locked() -> bool:
            said = self.status()
            return not said["unlocked"] and {*pairs} <= {one["pair"] for one in said["pairs"]}

        until("the pairs are locked", locked, timeout_s=30)

    def wait_until(self, condition: Callable[[], object]) -> float:
        """How many seconds it took until this was so. Raises: TimeoutError."""
        return until("the mirror follows", condition)

    def pair(self, name: str) -> Any:
        """What /-/status says about a pair."""
        return next(one for one in self.status()["pairs"] if one["pair"] == name)

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the mirror does not start\n{self.log}"
        try:
            return Answer(f"{self.url}/-/ready").status == 200
        except OSError:
            return False

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", self.module, "-c", str(self.config), *arguments]


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HUBPIN_")}
    return {**kept, "COLUMNS": "1000"}


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
