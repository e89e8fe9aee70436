"""A client that believes nothing: it counts every byte and sees how the connection ended."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from tests.fakes.content import Blob

TOKEN = "hf_aClientsOwnTokenWhichIsACanary"
COOKIE = "canary-cookie-of-a-client"
# What a client might send, and nobody else may ever see.
CANARIES = {"Authorization": f"Bearer {TOKEN}", "Cookie": f"session={COOKIE}"}
PATIENCE_S = 30.0  # without a byte; the mirror's own deadlines are well below


class Verdict(StrEnum):
    """What an answer is worth."""

    RIGHT = "right"  # complete, and exactly the expected bytes
    CLEAN = "clean"  # an error status, or a short body that ends with FIN
    WRONG = "wrong"  # complete with other bytes, or more than was announced
    RESET = "reset"  # RST, or no answer at all
    HANG = "hang"


RIGHT, CLEAN = Verdict.RIGHT, Verdict.CLEAN


@dataclass(slots=True)
class Got:
    """Everything that came over one connection."""

    head: str = ""
    body: bytearray = field(default_factory=bytearray)
    end: str = ""  # fin, reset or silence
    first_s: float = 0.0  # until the first byte
    seconds: float = 0.0  # until the end

    @property
    def status(self) -> int:
        return int(self.head.split(" ")[1]) if self.head.startswith("HTTP/1.") else 0

    def header(self, name: str) -> str:
        found = [ln for ln in self.head.split("\r\n") if ln.lower().startswith(name.lower() + ":")]
        return ",".join(line.partition(":")[2].strip() for line in found)

    @property
    def length(self) -> int:
        """The announced one; -1 if there is none."""
        text = self.header("Content-Length")
        return int(text) if text.isdigit() else -1

    def verdict(self, want: bytes) -> Verdict:
        """`want` is what a complete answer to this request holds."""
        if self.end == "silence":
            return Verdict.HANG
        if self.end == "reset" or not self.status:
            return Verdict.RESET
        if self.status >= 400:
            return CLEAN if len(self.body) == self.length else Verdict.WRONG
        if self.status not in (200, 206) or self.length < 0 or len(self.body) > self.length:
            return Verdict.WRONG
        if len(self.body) < self.length:
            return CLEAN
        return RIGHT if bytes(self.body) == want else Verdict.WRONG


def ask(
    url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None,
    patience_s: float = PATIENCE_S, body: bytes = b"",
) -> Got:  # fmt: skip
    """One request on a connection of its own, which is asked to close."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    sent = {"Host": parts.netloc, "Connection": "close", **CANARIES, **(headers or {})}
    if body:
        sent["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    request = f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body
    return exchange(parts.hostname or "", parts.port or 80, request, patience_s=patience_s)


def exchange(host: str, port: int, request: bytes, *, patience_s: float = PATIENCE_S) -> Got:
    """Send these very bytes and read until the other side ends the connection."""
    got, data, began = Got(), bytearray(), time.monotonic()
    try:
        with socket.create_connection((host, port), timeout=patience_s) as connection:
            connection.sendall(request)
            while piece := connection.recv(1 << 20):
                got.first_s = got.first_s or time.monotonic() - began
                data += piece
        got.end = "fin"
    except TimeoutError:
        got.end = "silence"
    except OSError:
        got.end = "reset"
    got.seconds = time.monotonic() - began
    head, _, got.body = data.partition(b"\r\n\r\n")
    got.head = head.decode("latin-1")
    return got


class Download:
    """A file as the Hub's client takes it: a short body is resumed with Range, and at the end
    sizes are compared and never digests."""

    def __init__(self, url: str, content: Blob) -> None:
        self.url = url
        self.want = content.read(0, content.size)
        self.have = bytearray()
        self.answers: list[Got] = []

    @property
    def complete(self) -> bool:
        return len(self.have) >= len(self.want)

    def attempt(self) -> Verdict:
        """Ask for what is missing (for all, if nothing is). A complete file that is wrong fails
        the test here."""
        if self.complete:
            self.have.clear()
        start = len(self.have)
        headers = {"Range": f"bytes={start}-"} if start else {}
        got = ask(self.url, headers=headers)
        self.answers.append(got)
        ranged = got.status == 206
        verdict = got.verdict(self.want[start:] if ranged else self.want)
        if got.status == 200:
            self.have = bytearray(got.body)
        elif ranged:
            assert got.header("Content-Range").startswith(f"bytes {start}-")
            self.have += got.body
        if self.complete:
            assert self.have == self.want, f"WRONG BYTES ACCEPTED: {[a.head for a in self.answers]}"
        return verdict
