"""Listeners that take notes: between devices and a mirror, and where no client may ever go."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_HEAD = re.compile(
    rb"(?:^|(?<=\r\n)|(?<=\n))(GET|HEAD|POST|PUT|DELETE|CONNECT) (\S+) HTTP/1\.1\r\n"
    rb"((?:[^\r\n]+\r\n)*)\r\n"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it left a device."""

    method: str
    target: str
    headers: str  # lines, lower case


class Listener(ABC):
    """Accepts connections in threads; a context manager."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._guard = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        with self._guard:
            self._closed = True
            for sock in [self._socket, *self._open]:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for sock in [self._socket, *self._open]:
            sock.close()

    @abstractmethod
    def serve(self, sock: socket.socket) -> None:
        """One connection, in a thread of its own."""

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            if self._keep(sock):
                self._spawn(partial(self.serve, sock))

    def _keep(self, sock: socket.socket) -> bool:
        """Close it when the listener is closed; False if it is already."""
        with self._guard:
            if self._closed:
                sock.close()
                return False
            self._open.append(sock)
            return True

    def _spawn(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()


class Canary(Listener):
    """A proxy that lets nobody out, and knows who tried."""

    def __init__(self) -> None:
        super().__init__()
        self.tried: list[str] = []

    def serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            line = sock.recv(1 << 16).partition(b"\r\n")[0]
            self.tried.append(line.decode("latin-1"))
            sock.sendall(
                b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            sock.shutdown(socket.SHUT_RDWR)


class Wiretap(Listener):
    """Passes bytes between devices and a mirror, and keeps them."""

    def __init__(self, mirror_url: str) -> None:
        super().__init__()
        self._mirror = (urlsplit(mirror_url).hostname or "", urlsplit(mirror_url).port or 80)
        self._sent: list[bytearray] = []  # by devices, one per connection
        self.answered = bytearray()  # by the mirror

    @property
    def asked(self) -> list[Asked]:
        """Every request so far, connection by connection."""
        return [
            Asked(found[1].decode(), found[2].decode("latin-1"), found[3].decode("latin-1").lower())
            for sent in self._sent
            for found in _HEAD.finditer(bytes(sent))
        ]

    def serve(self, sock: socket.socket) -> None:
        try:
            mirror = socket.create_connection(self._mirror, timeout=10)
        except OSError:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            return
        mirror.settimeout(None)
        if not self._keep(mirror):
            return
        sent = bytearray()
        self._sent.append(sent)
        self._spawn(lambda: _pump(mirror, sock, self.answered))
        _pump(sock, mirror, sent)


def _pump(source: socket.socket, sink: socket.socket, notes: bytearray) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 18):
            notes += piece
            sink.sendall(piece)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
