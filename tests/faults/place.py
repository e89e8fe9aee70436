"""One mirror for all tests about clients: whom it serves while others misbehave."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from tests.faults.bench import SMALL, Bench
from tests.faults.client import ask
from tests.faults.mirror import MirrorProcess


@dataclass(slots=True)
class Place:
    """The mirror, and who is connected to it all the time."""

    bench: Bench
    slow: list[socket.socket] = field(default_factory=list)
    connected_at: float = 0.0

    @property
    def mirror(self) -> MirrorProcess:
        return self.bench.mirror

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.mirror.port), timeout=20)

    def request(self, path: str, *lines: str) -> bytes:
        head = "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: m", *lines))
        return f"{head}\r\n".encode()

    def milliseconds(self) -> list[float]:
        """How long a hundred small hits take."""
        return sorted(ask(self.bench.url(SMALL)).seconds * 1000 for _ in range(100))
