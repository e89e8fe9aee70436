"""Who listens on a port of this machine, and under which addresses the machine is reached."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from proxy.config import Listen

_SIOCGIFADDR = 0x8915  # netdevice(7)
_LISTENING = "0A"  # linux/include/net/tcp_states.h, TCP_LISTEN
_WILD = ("0.0.0.0", "::", "")  # noqa: S104  # compared with, not bound


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that listens on a port; 0 and "" where this machine does not tell us."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.command})" if self.pid else "another program"


def problem(listen: Listen) -> OSError | None:
    """What would keep a server from listening there, if anything."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((listen.host, listen.port))
            probe.listen(1)  # on Linux, SO_REUSEADDR lets a bind beside a listener pass
    except OSError as e:
        return e
    return None


def is_taken(error: OSError) -> bool:
    return error.errno == errno.EADDRINUSE


def holder(port: int) -> Holder:
    """Who listens on this TCP port. On Linux, and for processes that we may look into."""
    inodes = _listening_inodes(port)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # not ours to look into, or gone
            for link in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(link.readlink()) in inodes:
                        return Holder(int(process.name), command_line(int(process.name)))
    return Holder(0, "")


def command_line(pid: int) -> str:
    """What a process was started as, one line; "" if it cannot be told."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode("utf-8", "replace").strip()[:200]


def _listening_inodes(port: int) -> set[str]:
    """`socket:[inode]` of each listener (proc(5), /proc/net/tcp)."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{fields[9]}]")
    return found


def lan_urls(listen: Listen) -> list[str]:
    """The URLs under which other machines reach a server that listens there; the likeliest first.

    A server that listens on one address only, or a machine without a network, has just that one.
    """
    if listen.host not in _WILD:
        return [f"http://{listen}"]
    hosts = [host for host in (_outward(), *_interfaces()) if host]
    unique = list(dict.fromkeys(hosts)) or ["127.0.0.1"]
    return [f"http://{Listen(host, listen.port)}" for host in unique]


def _outward() -> str:
    """The address that packets to the world leave from. Nothing is sent: UDP only looks it up."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def _interfaces() -> list[str]:
    """The IPv4 address of each interface but loopback."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            with contextlib.suppress(OSError):  # an interface without an IPv4 address
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
                address = ipaddress.ip_address(answer[20:24])
                if not address.is_loopback:
                    found.append(str(address))
    return found
