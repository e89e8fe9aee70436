"""Many clients at once, in processes of their own: each checks every byte of its range.

`python -m tests.faults.crowd URL` reads a JSON list of jobs from stdin and prints what became of
each, in order.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
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
    parts = urlsplit(url)
    start, stop = job.span
    ranged = f"Range: bytes={start}-{stop - 1}\r\n" if job.stop >= 0 else ""
    content, buffer = Content(job.seed, job.size), memoryview(bytearray(BLOCK))
    try:
        with socket.create_connection((parts.hostname, parts.port), timeout=_PATIENCE_S) as client:
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
            if not head.startswith(b"HTTP/1.1 206" if ranged else b"HTTP/1.1 200"):
                return head.decode("latin-1").partition("\r\n")[0]
            at = start
            while count := client.recv_into(buffer):
                if content.read(at, at + count) != buffer[:count]:
                    return f"wrong at {at}"
                at += count
                if 0 <= job.leave_at <= at:
                    return "left"
            return "right" if at == stop else f"short: {at - start} of {stop - start}"
    except OSError as e:
        return f"{type(e).__name__}: {e}"


def main() -> None:
    jobs = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Job])
    url = sys.argv[1]
    threading.stack_size(256 << 10)
    with ThreadPoolExecutor(max(1, len(jobs))) as pool:
        found = list(pool.map(lambda job: _ask(url, job), jobs))
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
