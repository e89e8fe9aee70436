"""How a fake Hub behaves apart from faults."""

from __future__ import annotations

from dataclasses import dataclass

TOKEN = "hf_theUpstreamTokenOfTheseTests"


@dataclass(slots=True)
class Settings:
    """Chosen at the start, and changed while it runs by `hub.set(...)`."""

    world: str = "acme"  # what a process starts with: acme or empty
    hub_host: str = "127.0.0.1"
    hub_port: int = 0
    cdn_host: str = "127.0.0.2"
    cdns: int = 1  # how many CDN ports; signed URLs go to them in turn
    mirror: bool = False  # also a port that behaves like hf-mirror.com
    mirror_redirects: tuple[str, ...] = ("resolve", "info", "revision", "refs")
    token: str = TOKEN  # the one token that is valid
    closed: tuple[str, ...] = ()  # gated repositories that the token does not open
    gated_status: int = 403  # for a gated file without a token (the Hub has also sent 401)
    page_size: int = 1000  # entries of a tree in one answer
    link_origin: str = ""  # where `Link: next` leads; "" is the address that was asked
    resolve_cache: bool = False  # regular files are answered by 307 to /api/resolve-cache/…
    xet: bool = True  # advertise Xet
    url_life_s: float = 3600.0  # of signed URLs
    bandwidth: float | None = None  # bytes a second, of each connection
    latency_s: float = 0.0  # before every answer, and once more on a fresh connection
    max_connections: int | None = None  # of each port; more are reset
    ignore_range: bool = False  # the CDN answers 200 to every range
    tls: str = ""  # of the hub's port: good, self-signed, expired, wrong-host; "" is plain
