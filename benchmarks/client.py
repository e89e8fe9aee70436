"""Load generators, in a process of their own: `python -m benchmarks.client` reads an order as JSON
from stdin and prints what it saw as JSON.

One epoll loop each, because clients share the machine with what they measure: a request costs
a few microseconds here, and a body can be thrown away by the kernel (MSG_TRUNC) without a copy.
"""

from __future__ import annotations

import json
import math
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_BUFFER = 1 << 20
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Order:
    """What to do. Connection k asks for paths[k], paths[k + clients] and so on, in turn."""

    port: int
    paths: tuple[str, ...]
    clients: int = 1
    method: str = "GET"
    seconds: float = 0.0  # until it stops; 0: every path once
    discard: bool = False  # the kernel throws bodies away
    rate: float = 0.0  # bytes a second that each client takes; 0: what comes
    pause_s: float = 0.0  # between the requests of a client


@dataclass(slots=True)
class Seen:
    """What a run saw; times are seconds."""

    seconds: float = 0.0
    requests: int = 0
    failed: int = 0
    bytes: list[int] = field(default_factory=list)  # of bodies, by client
    first_byte: list[float] = field(default_factory=list)  # of each answer, from its request on
    whole: list[float] = field(default_factory=list)  # each answer to its end

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def throughput(self) -> float:
        """Bytes a second."""
        return sum(self.bytes) / self.seconds

    @property
    def fairness(self) -> float:
        """What the fastest client got ÷ what the slowest got."""
        return max(self.bytes) / max(1, min(self.bytes))


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of them lie; infinite, if nobody was answered."""
    ranked = sorted(values) or [math.inf]
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


class Running:
    """An order that a process works on."""

    def __init__(self, order: Order) -> None:
        self._limit_s = order.seconds + _TIMEOUT_S
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.client"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT,
        )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(order)).encode())
        self._process.stdin.close()
        self._process.stdin = None

    def result(self) -> Seen:
        """Waits for its end. Raises: RuntimeError, if an answer was wrong or it took too long."""
        try:
            out, _ = self._process.communicate(timeout=self._limit_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise RuntimeError("the clients did not come to an end") from None
        if self._process.returncode:
            raise RuntimeError("the clients failed")
        seen = Seen(**json.loads(out))
        if seen.failed:
            raise RuntimeError(f"{seen.failed} of {seen.requests} answers were wrong")
        return seen


def run(order: Order) -> Seen:
    return Running(order).result()


# --- in the process ------------------------------------------------------------------------------


class _Client:
    """One connection with one request at a time."""

    def __init__(self, order: Order, number: int) -> None:
        self.order = order
        self.number = number
        self.turn = number
        self.sock = socket.socket()
        if order.rate:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        self.sock.connect(("127.0.0.1", order.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.head = b""
        self.left = -1  # bytes of the body; -1: the head is not there yet
        self.asked = 0.0
        self.body = False  # whether a byte of it has come
        self.idle_until = 0.0

    def ask(self) -> bool:
        """Send the next request; False if there is none."""
        paths = self.order.paths
        if self.turn >= len(paths) and not self.order.seconds:
            return False
        path = paths[self.turn % len(paths)]
        self.turn += self.order.clients
        self.head, self.left, self.body = b"", -1, False
        self.asked = time.perf_counter()
        self.sock.send(f"{self.order.method} {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        return True


class _Load:
    def __init__(self, order: Order) -> None:
        self.order = order
        self.seen = Seen(bytes=[0] * order.clients)
        self.poll = select.epoll()
        self.clients: dict[int, _Client] = {}
        self.buffer = bytearray(_BUFFER)
        self.flags = socket.MSG_TRUNC if order.discard else 0
        self.began = 0.0
        self.waiting: list[_Client] = []  # for their next request or their next bytes

    def run(self) -> Seen:
        self.began = time.perf_counter()
        for number in range(self.order.clients):
            client = _Client(self.order, number)
            client.sock.setblocking(False)
            self.clients[client.sock.fileno()] = client
            self.poll.register(client.sock, select.EPOLLIN)
        for client in list(self.clients.values()):
            self._next(client)
        end = self.began + (self.order.seconds or _TIMEOUT_S)
        while self.clients and time.perf_counter() < end:
            for fd, _ in self.poll.poll(0.001 if self.waiting else 0.1):
                if fd in self.clients:
                    self._take(self.clients[fd])
            now = time.perf_counter()
            for client in [one for one in self.waiting if one.idle_until <= now]:
                self.waiting.remove(client)
                self._wake(client)
        self.seen.seconds = time.perf_counter() - self.began
        if self.clients and not self.order.seconds:
            self.seen.failed += len(self.clients)
        return self.seen

    def _take(self, client: _Client) -> None:
        try:
            if client.left < 0:
                self._take_head(client, client.sock.recv(16 << 10))
            else:
                want = min(client.left, _BUFFER, int(self.order.rate / 10) or _BUFFER)
                count = client.sock.recv_into(self.buffer, want, self.flags)
                if count == 0:
                    raise ConnectionError
                self._came(client, count)
        except BlockingIOError:
            return
        except ConnectionError:
            self._fail(client)

    def _take_head(self, client: _Client, data: bytes) -> None:
        if not data:
            raise ConnectionError
        client.head += data
        head, found, rest = client.head.partition(b"\r\n\r\n")
        if not found:
            return
        if head[9:12] not in (b"200", b"206"):
            raise ConnectionError
        if self.order.method == "HEAD":
            client.left = 0
            self.seen.first_byte.append(time.perf_counter() - client.asked)
            self._end(client)
            return
        client.left = _length(head)
        if rest or client.left == 0:
            self._came(client, len(rest))

    def _came(self, client: _Client, count: int) -> None:
        if not client.body:
            client.body = True
            self.seen.first_byte.append(time.perf_counter() - client.asked)
        client.left -= count
        self.seen.bytes[client.number] += count
        if client.left <= 0:
            self._end(client)
        elif self.order.rate:
            self._rest(client, count / self.order.rate)

    def _end(self, client: _Client) -> None:
        self.seen.requests += 1
        self.seen.whole.append(time.perf_counter() - client.asked)
        if self.order.pause_s:
            self._rest(client, self.order.pause_s)
        else:
            self._next(client)

    def _rest(self, client: _Client, seconds: float) -> None:
        self.poll.modify(client.sock, 0)
        client.idle_until = time.perf_counter() + seconds
        self.waiting.append(client)

    def _wake(self, client: _Client) -> None:
        self.poll.modify(client.sock, select.EPOLLIN)
        if client.left == 0:
            self._next(client)

    def _next(self, client: _Client) -> None:
        try:
            if client.ask():
                return
            self._close(client)
        except OSError:
            self._fail(client)

    def _fail(self, client: _Client) -> None:
        self.seen.failed += 1
        self._close(client)

    def _close(self, client: _Client) -> None:
        del self.clients[client.sock.fileno()]
        client.sock.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ConnectionError


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    given = json.load(sys.stdin)
    given["paths"] = tuple(given["paths"])
    print(json.dumps(asdict(_Load(Order(**given)).run())))
