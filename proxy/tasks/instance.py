"""The server that `hubpin start` runs in the background: which process it is, how it answers.

    <data>/server.json     {"pid", "ticks", "boot", "listen", "started"}

A pid alone is no identity: the kernel gives it to somebody else. The moment when the process began
(`ticks`, clock ticks since the boot `boot`) tells the two apart, and nothing is ever sent to a
process that is not the one on record.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from proxy.config import Config
from proxy.hub.wire import Json
from proxy.tasks import files

_ANSWER_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """A process that we started."""

    pid: int
    ticks: int
    boot: str
    listen: str
    started: float  # Unix seconds, UTC

    @classmethod
    def of(cls, pid: int, listen: str, started: float) -> Record | None:
        """None, if there is no such process any more."""
        ticks = _ticks(pid)
        return None if ticks is None else cls(pid, ticks, _boot(), listen, started)

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return _boot() == self.boot and _ticks(self.pid) == self.ticks


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to a GET."""

    status: int
    body: bytes

    def json(self) -> Json:
        """The body as an object; an empty one if it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


def record_file(config: Config) -> Path:
    return config.data / "server.json"


def log_file(config: Config) -> Path:
    return config.data / "server.log"


def read(config: Config) -> Record | None:
    """The record; None if there is none that makes sense."""
    try:
        raw = json.loads(record_file(config).read_bytes())
        return Record(
            int(raw["pid"]), int(raw["ticks"]), str(raw["boot"]), str(raw["listen"]),
            float(raw["started"]),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write(config: Config, record: Record) -> None:
    """Raises: StoreError."""
    files.replace(record_file(config), json.dumps(asdict(record)).encode() + b"\n")


def forget(config: Config) -> None:
    with suppress(OSError):
        record_file(config).unlink()


def send(record: Record, number: signal.Signals) -> bool:
    """Signal the process on record; False if it is gone. Never reaches another one."""
    try:
        handle = os.pidfd_open(record.pid)
    except OSError:
        return False
    try:
        # The handle stands for one process for ever: if it is ours now, the signal gets to ours.
        if not record.alive():
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def get(url: str, path: str, timeout_s: float) -> Answer | None:
    """GET from a server on this machine, past any proxy; None if nobody answers HTTP. Blocking."""
    address = url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Answer(response.status, response.read(_ANSWER_BYTES))
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def status(config: Config, timeout_s: float = 5.0) -> Json | None:
    """`/-/status` of the server where this configuration listens; None if none of ours answers."""
    answer = get(config.listen.local_url, "/-/status", timeout_s)
    if answer is None or answer.status != 200:
        return None
    said = answer.json()
    return said if "pid" in said and "data" in said else None


def serves(config: Config, said: Json) -> bool:
    """Whether the server that said this works on the data directory of this configuration."""
    return Path(str(said.get("data"))).resolve() == config.data.resolve()


def _ticks(pid: int) -> int | None:
    """When the process began (proc(5), /proc/<pid>/stat, field 22); None if it does not run."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the name in brackets, and may itself hold brackets and spaces.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])  # a zombie runs no more


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
