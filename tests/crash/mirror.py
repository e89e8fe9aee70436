"""A mirror whose process dies and comes back, on a data directory that stays."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from proxy.hub.names import Digest
from proxy.hub.wire import Json
from tests.crash.syscalls import Plan
from tests.crash.zygote import Order, Zygote
from tests.faults.client import Got, ask

_LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+)")
_START_S = 60.0


class Mortal:
    """A folder with the operator's files, and the server that runs on them now and then."""

    def __init__(
        self, folder: Path, zygote: Zygote, *,
        upstream: str, allow: tuple[str, ...], data: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.data = data or folder / "data"
        self.lock = folder / "allowlist.lock"
        self.pid = 0
        self.port = 0
        self.status: int | None = None  # of the process that ended last
        self._zygote = zygote
        self._log_start = 0
        folder.mkdir(parents=True, exist_ok=True)
        keys = {
            "listen": "127.0.0.1:0", "data": str(self.data), "keep_free": "1MiB",
            "timeouts": "{connect: 2s, read: 5s}", "fetcher": "false", **(settings or {}),
        }  # fmt: skip
        text = "".join(f"{key}: {value}\n" for key, value in keys.items())
        (folder / "hubpin.yaml").write_text(
            f"{text}upstreams:\n  - url: {upstream}\n    redirect_hosts: [127.0.0.2]\n"
        )
        allowed = "".join(f"  - {one}\n" for one in allow)
        (folder / "allowlist.yaml").write_text(f"allow:\n{allowed}")

    @property
    def log(self) -> str:
        """What the process that was begun last said."""
        file = self.folder / "log"
        if not file.exists():
            return ""
        with file.open("rb") as text:
            text.seek(self._log_start)
            return text.read().decode(errors="replace")

    def order(self, *arguments: str) -> Order:
        config = str(self.folder / "hubpin.yaml")
        return Order(["-c", config, *arguments], str(self.folder / "log"))

    def begin(self, **options: object) -> None:
        """Start it, with these fields of `Order` changed, and do not wait."""
        file = self.folder / "log"
        self._log_start = file.stat().st_size if file.exists() else 0
        self.port, self.status = 0, None
        self.pid = self._zygote.spawn(replace(self.order("serve"), **options))  # type: ignore[arg-type]  # handed on

    def start(self, **options: object) -> bool:
        """Returns once it listens; False if it ended first."""
        self.begin(**options)
        return self.listening()

    def listening(self) -> bool:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            found = _LISTENING.search(self.log)
            if found is not None:
                self.port = int(found[1])
                return True
            if self.poll() is not None:
                return False
            time.sleep(0.005)
        raise TimeoutError(f"the mirror does not start:\n{self.log}")

    def poll(self) -> int | None:
        if self.status is None:
            self.status = self._zygote.wait(self.pid)
        return self.status

    def wait(self, timeout_s: float = 30.0) -> int:
        """The exit status. Raises: TimeoutError."""
        end = time.monotonic() + timeout_s
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                raise TimeoutError(f"the mirror does not end:\n{self.log}")
            time.sleep(0.005)
        return status

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End it and wait for the end; the exit status."""
        if self.pid and self.poll() is None:
            os.kill(self.pid, number)
        return self.wait() if self.pid else 0

    def run(self, *arguments: str, **options: object) -> tuple[int, str]:
        """Another command beside the server: its status and its words."""
        log = self.folder / f"log-{arguments[0]}"
        log.unlink(missing_ok=True)
        order = replace(self.order(*arguments), log=str(log), **options)  # type: ignore[arg-type]  # handed on
        pid = self._zygote.spawn(order)
        end = time.monotonic() + 60
        while (status := self._zygote.wait(pid)) is None:
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                raise TimeoutError(log.read_text())
            time.sleep(0.005)
        return status, log.read_text(errors="replace")

    def plan(self, **fields: object) -> Plan:
        return msgspec.convert({"folder": str(self.folder), **fields}, Plan)

    # --- what it says ---

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def file_url(self, repo: str, path: str) -> str:
        return f"{self.url}/{repo}/resolve/main/{path}"

    def get(self, repo: str, path: str, **headers: str) -> Got:
        return ask(self.file_url(repo, path), headers=headers)

    def said(self) -> Json:
        return msgspec.json.decode(bytes(ask(f"{self.url}/-/status").body), type=Json)

    def memory(self) -> int:
        """Most bytes that it ever held in memory."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
        assert found is not None
        return int(found[1]) << 10

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # --- what lies there ---

    def blob(self, digest: Digest) -> Path:
        return self.data / "blobs-v1" / "sha256" / digest.hex[:2] / digest.hex

    def check_blobs(self) -> set[str]:
        """I1: under every name lie the bytes of that name. The names."""
        names = set()
        for path in (self.data / "blobs-v1").rglob("*"):
            if path.is_file():
                got = hashlib.sha256(path.read_bytes()).hexdigest()
                assert got == path.name, f"I1: {path} holds {got}"
                names.add(path.name)
        return names

    def tree(self) -> dict[str, tuple[int, int]]:
        """Size and inode of every file that has to do with blobs."""
        return {
            str(path.relative_to(self.data)): (path.stat().st_size, path.stat().st_ino)
            for folder in ("blobs-v1", "spool", "quarantine", "misled")
            for path in (self.data / folder, *(self.data / folder).rglob("*"))
            if path.is_file()
        }

    def spool(self) -> list[str]:
        return sorted(path.name for path in (self.data / "spool").glob("*"))
