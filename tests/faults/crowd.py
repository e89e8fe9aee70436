"""Many clients at once, in processes of their own: each checks every byte of its range.

`python -m tests.faults.crowd URL` reads a JSON list of jobs from stdin and prints what became of
each, in order.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from tests.fakes.content import BLOCK, Content
from tests.faults.mirror import ROOT

_PROCESSES = 4
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """What one client wants."""

    seed: str
    size: int  # of the whole file
    start: int = 0
    stop: int = -1  # -1: no Range
    leave_at: int = -1  # it hangs up after so many bytes

    @property
    def span(self) -> tuple[int, int]:
        return (0, self.size) if self.stop < 0 else (self.start, self.stop)


class Crowd:
    """Starts the clients at once; `outcomes` waits for them."""

    def __init__(self, url: str, jobs: Sequence[Job]) -> None:
        shares = [list(jobs[number::_PROCESSES]) for number in range(_PROCESSES)]
        self._runs = []
        for share in shares:
            run = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.crowd", url],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            assert run.stdin is not None
            run.stdin.write(msgspec.json.encode(share))
            run.stdin.close()
            self._runs.append(run)

    def outcomes(self) -> list[str]:
        found: list[str] = []
        for run in self._runs:
            assert run.stdout is not None
            with run.stdout as out:
                found += msgspec.json.decode(out.read(), type=list[str])
            run.wait()
        return found


def _ask(url: str, job: Job) -> str:
    """As a client does that comes again when it is told to."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            found = _ask_once(url, job)
        except OSError as e:
            return f"{type(e).__name__}: {e}"
        if found != "later" or time.monotonic() > end:
            return found
        time.sleep(1)


def _ask_once(url: str, job: Job) -> str:
    parts = urlsplit(url)
    start, stop = job.span
    ranged = f"Range: bytes={start}-{stop - 1}\r\n" if job.stop >= 0 else ""
    with socket.create_connection((parts.hostname, parts.port)) as client:
        # Python's own timeouts would make MSG_WAITALL return early.
        patience = struct.pack("ll", int(_PATIENCE_S), 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        client.sendall(
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{ranged}"
            "User-Agent: crowd\r\nConnection: close\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = client.recv(1)
            if not piece:
                return f"no head: {head!r}"
            head += piece
        if head.startswith(b"HTTP/1.1 503") and b"\r\nRetry-After: " in head:
            return "later"
        if not head.startswith(b"HTTP/1.1 206" if ranged else b"HTTP/1.1 200"):
            return head.decode("latin-1").partition("\r\n")[0]
        return _read(client, job)


def _read(client: socket.socket, job: Job) -> str:
    content, buffer = Content(job.seed, job.size), bytearray(BLOCK)
    at, stop = job.span
    while count := client.recv_into(buffer, 0, socket.MSG_WAITALL):
        # A bytearray and bytes are compared by memcmp; a memoryview, byte by byte.
        if (buffer if count == BLOCK else buffer[:count]) != content.read(at, at + count):
            return f"wrong at {at}"
        at += count
        if 0 <= job.leave_at <= at:
            return "left"
    return "right" if at == stop else f"short: {stop - at} of {stop - job.span[0]} are missing"


def main() -> None:
    jobs = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Job])
    url = sys.argv[1]
    threading.stack_size(256 << 10)
    with ThreadPoolExecutor(max(1, len(jobs))) as pool:
        found = list(pool.map(lambda job: _ask(url, job), jobs))
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
