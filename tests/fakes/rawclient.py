"""HTTP clients without any patience or cleverness: they show what a server really sent."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit

Headers = dict[str, str]


class Answer:
    """An answer by the standard library, redirects and errors included."""

    def __init__(
        self, url: str, *, method: str = "GET", headers: Headers | None = None, body: str = "",
        timeout_s: float = 5,
    ) -> None:  # fmt: skip
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        with closing(http.client.HTTPConnection(parts.netloc, timeout=timeout_s)) as connection:
            connection.request(method, target, body or None, headers or {})
            reply = connection.getresponse()
            self.status = reply.status
            self.headers = {name.lower(): value for name, value in reply.getheaders()}
            self.body = reply.read()

    @property
    def json(self) -> object:
        return json.loads(self.body)


def get(url: str, *, headers: Headers | None = None) -> Answer:
    """Follows one redirect, as to the CDN, without the Authorization."""
    answer = Answer(url, headers=headers)
    if answer.status in (302, 307, 308):
        kept = {name: v for name, v in (headers or {}).items() if name != "Authorization"}
        location = answer.headers["location"]
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        return Answer(location if "://" in location else origin + location, headers=kept)
    return answer


@dataclass
class Raw:
    """Everything that came over one connection, and how it ended."""

    head: str = ""
    body: bytes = b""
    end: str = "open"  # fin, reset, or open: the other side went silent

    @property
    def status(self) -> int:
        return int(self.head.split(" ")[1]) if self.head.startswith("HTTP/1.1 ") else 0

    def header(self, name: str) -> str:
        found = [ln for ln in self.head.split("\r\n") if ln.lower().startswith(name.lower() + ":")]
        return ",".join(line.partition(":")[2].strip() for line in found)


def exchange(url: str, *, method: str = "GET", start: int = 0, patience_s: float = 5) -> Raw:
    """One request by hand; the connection is asked to close, so that its end is seen."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    host, port = parts.hostname or "", parts.port or 80
    ranged = f"Range: bytes={start}-\r\n" if start else ""
    raw = Raw()
    data = b""
    with socket.create_connection((host, port), timeout=patience_s) as connection:
        connection.sendall(
            f"{method} {target} HTTP/1.1\r\nHost: {host}:{port}\r\n{ranged}"
            "Connection: close\r\n\r\n".encode()
        )
        try:
            while piece := connection.recv(1 << 20):
                data += piece
            raw.end = "fin"
        except ConnectionResetError:
            raw.end = "reset"
        except TimeoutError:
            pass
    head, _, raw.body = data.partition(b"\r\n\r\n")
    raw.head = head.decode("latin-1")
    return raw
