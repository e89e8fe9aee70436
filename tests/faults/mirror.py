"""A mirror in a process of its own, ready before a test needs it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from proxy.hub.wire import Json
from tests.fakes.settings import TOKEN
from tests.faults.client import ask

ROOT = Path(__file__).parents[2]
_START_S = 60.0
_LISTENING = re.compile(r"listening on (127\.0\.0\.1:\d+)")


@dataclass(frozen=True, slots=True)
class Source:
    """An upstream in hubpin.yaml."""

    url: str
    token: bool = True
    connections: int = 4


class MirrorProcess:
    """A folder with the operator's files, and the server that runs on them."""

    def __init__(
        self, sources: Sequence[Source], allow: Sequence[str], *,
        lock: bytes = b"", settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.folder = Path(tempfile.mkdtemp(prefix="hubpin-faults-"))
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("HUBPIN_")}
        self._environment |= environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ""
        token = self.folder / "token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        self.config.write_text(_config(sources, settings or {}))
        self.allow(*allow)
        if lock:
            self.lock.write_bytes(lock)

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
        return self.folder / "data"

    @property
    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def allow(self, *lines: str) -> None:
        self.allowlist.write_text("allow:\n" + "".join(f"  - {line}\n" for line in lines))

    # --- its life ---

    def begin(self) -> None:
        """Start it, and do not wait."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "proxy", "-c", str(self.config), "serve"],
                cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def start(self) -> MirrorProcess:
        """Returns once it is ready."""
        if self._process is None:
            self.begin()
        assert self._process is not None
        end = time.monotonic() + _START_S
        while not self._address:
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the mirror does not start:\n{self.log}")
            found = _LISTENING.search(self.log)
            if found is not None:
                self._address = found[1]
            else:
                time.sleep(0.02)
        return self

    def close(self) -> None:
        """End it as a power cut does, and remove all that it had."""
        if self._process is not None:
            family = self.family() if self.alive else []
            self._process.kill()
            self._process.wait()
            for pid in family[1:]:  # they end by themselves, and we do not wait for that
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `hubpin` with the same configuration."""
        return subprocess.run(
            [sys.executable, "-m", "proxy", "-c", str(self.config), *arguments],
            cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=100, check=False,
        )  # fmt: skip

    # --- what it says and does ---

    @property
    def url(self) -> str:
        return f"http://{self._address}"

    @property
    def port(self) -> int:
        return int(self._address.partition(":")[2])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def status(self) -> Json:
        return msgspec.json.decode(bytes(ask(f"{self.url}/-/status").body), type=Json)

    def metric(self, name: str) -> float:
        """The sum over all labels; 0 if nothing was counted."""
        text = ask(f"{self.url}/metrics").body.decode()
        lines = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, lines))

    def family(self) -> list[int]:
        """The server's pid, and those of the processes that it started."""
        found = [self.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, task.read_text().split())
        return found

    def memory(self, field: str) -> int:
        """Bytes of all its processes: VmRSS (now) or VmHWM (at most, so far)."""
        texts = [Path(f"/proc/{pid}/status").read_text() for pid in self.family()]
        found = [re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE) for text in texts]
        return sum(int(match[1]) << 10 for match in found if match is not None)

    def descriptors(self) -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.family())

    def blobs(self) -> set[str]:
        """The sha256 of every blob that it holds."""
        return {path.name for path in (self.data / "blobs-v1").rglob("*") if path.is_file()}


class Nursery:
    """Mirrors that start while another one is tested."""

    def __init__(self, sources: Sequence[Source], allow: Sequence[str], lock: bytes) -> None:
        self._sources, self._allow, self._lock = sources, allow, lock
        self._waiting: list[MirrorProcess] = []

    def take(self) -> MirrorProcess:
        self._ahead(2)
        mirror = self._waiting.pop(0).start()
        self._ahead(1)
        return mirror

    def _ahead(self, count: int) -> None:
        while len(self._waiting) < count:
            mirror = MirrorProcess(self._sources, self._allow, lock=self._lock)
            mirror.begin()
            self._waiting.append(mirror)

    def close(self) -> None:
        for mirror in self._waiting:
            mirror.close()


def _config(sources: Sequence[Source], settings: Mapping[str, str]) -> str:
    keys = {
        "listen": "127.0.0.1:0",
        "data": "data",
        "keep_free": "1MiB",
        "timeouts": "{connect: 2s, read: 3s}",
        **settings,
    }
    upstreams = "".join(
        f"  - url: {source.url}\n    redirect_hosts: [127.0.0.2]\n"
        f"    connections: {source.connections}\n"
        + ("    token_file: token\n" if source.token else "")
        for source in sources
    )
    return "".join(f"{key}: {value}\n" for key, value in keys.items()) + f"upstreams:\n{upstreams}"
