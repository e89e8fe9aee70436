"""nginx and HAProxy with the samples of deploy/, in front of some mirror, on loopback."""

from __future__ import annotations

import http.client
import os
import pwd
import shutil
import socket
import ssl
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.deploy.engines import engine
from tests.e2e.device import until
from tests.fakes import tls

DEPLOY = Path(__file__).parents[2] / "deploy"
# The samples let 127.0.0.0/8 in; here, the rest of loopback plays the outside.
INSIDE, OUTSIDE = "127.0.0.1", "127.0.0.9"
_NGINX = """\
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/front.log;
worker_processes 2;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/hubpin.conf;
}}
"""


class Front(ABC):
    """A reverse proxy in a process of its own; a context manager."""

    name: str

    def __init__(self, folder: Path, mirror: str, data: Path | None = None) -> None:
        """`data` is the mirror's, for proxies that read it themselves."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # the workers of a proxy may be nobody
        self.folder = folder
        self.data = data
        self.mirror = mirror.removeprefix("http://")
        self.port, self.tls_port = _free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None
        for suffix in ("pem", "key"):
            shutil.copy(tls.ca_file().with_name(f"good.{suffix}"), folder / f"mirror.{suffix}")
        self.write()

    @abstractmethod
    def write(self) -> None:
        """The sample with ports and paths of this run."""

    def check(self) -> subprocess.CompletedProcess[str]:
        """What the program says about the configuration."""
        return subprocess.run(
            self.checker(), capture_output=True, text=True, timeout=30, check=False
        )

    @abstractmethod
    def checker(self) -> list[str]: ...

    @abstractmethod
    def command(self) -> list[str]: ...

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """Who asked for what, and what went wrong."""
        files = (self.folder / "front.log", self.folder / "access.log")
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def __enter__(self) -> Self:
        with (self.folder / "front.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(f"{self.name} listens", self._listens)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def ask(
        self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None,
        secure: bool = False, source: str = INSIDE,
    ) -> Answer:  # fmt: skip
        """One request through the proxy, to the end of its answer."""
        with closing(self.connect(secure=secure, source=source)) as connection:
            connection.request(method, path, headers=dict(headers or {}))
            reply = connection.getresponse()
            try:
                body, whole = reply.read(), True
            except http.client.IncompleteRead as e:
                body, whole = e.partial, False
            got = {name.lower(): value for name, value in reply.getheaders()}
            return Answer(reply.status, got, body, whole)

    def connect(self, *, secure: bool = False, source: str = INSIDE) -> http.client.HTTPConnection:
        if not secure:
            return http.client.HTTPConnection(
                "127.0.0.1", self.port, timeout=20, source_address=(source, 0)
            )
        trust = ssl.create_default_context(cafile=str(tls.ca_file()))
        return http.client.HTTPSConnection(
            "127.0.0.1", self.tls_port, timeout=20, source_address=(source, 0), context=trust
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What came, and whether it was as long as it said."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool


class Nginx(Front):
    """deploy/nginx.conf."""

    name = "nginx"

    def write(self) -> None:
        text = sample(
            "nginx.conf",
            {
                "server 127.0.0.1:8090;": f"server {self.mirror};",
                "listen 80;": f"listen 127.0.0.1:{self.port};",
                "listen 443 ssl;": f"listen 127.0.0.1:{self.tls_port} ssl;",
                "/etc/nginx/tls/mirror.pem": f"{self.folder}/mirror.pem",
                "/etc/nginx/tls/mirror.key": f"{self.folder}/mirror.key",
                "/var/log/nginx/hubpin.log": f"{self.folder}/access.log",
                "127.0.0.0/8": "127.0.0.0/30",
            },
        )
        if self.data is not None:
            assert text.count("/var/lib/hubpin/data/") == 2
            text = text.replace("/var/lib/hubpin/data/", f"{self.data}/")
        (self.folder / "hubpin.conf").write_text(text)
        # Its workers run as the mirror does. Who is not root has one user only.
        user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 and self.data else ""
        (self.folder / "nginx.conf").write_text(_NGINX.format(folder=self.folder, user=user))

    def command(self) -> list[str]:
        return [engine("nginx"), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]

    def checker(self) -> list[str]:
        return [*self.command(), "-t"]


class Haproxy(Front):
    """deploy/haproxy.cfg."""

    name = "haproxy"

    def write(self) -> None:
        pair = [(self.folder / f"mirror.{suffix}").read_text() for suffix in ("pem", "key")]
        (self.folder / "both.pem").write_text("".join(pair))
        text = sample(
            "haproxy.cfg",
            {
                "server mirror 127.0.0.1:8090": f"server mirror {self.mirror}",
                "bind :80\n": f"bind 127.0.0.1:{self.port}\n",
                "bind :443 ssl": f"bind 127.0.0.1:{self.tls_port} ssl",
                "/etc/haproxy/mirror.pem": f"{self.folder}/both.pem",
                "127.0.0.0/8": "127.0.0.0/30",
            },
        )
        (self.folder / "haproxy.cfg").write_text(text)

    def command(self) -> list[str]:
        return [engine("haproxy"), "-db", "-f", str(self.folder / "haproxy.cfg")]

    def checker(self) -> list[str]:
        return [*self.command(), "-c"]


FRONTS: tuple[type[Front], ...] = (Nginx, Haproxy)


def sample(name: str, replaced: Mapping[str, str]) -> str:
    """The sample, with these texts replaced, each of which it holds once, comments aside."""
    lines = (DEPLOY / name).read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.lstrip().startswith("#"))
    for old, new in replaced.items():
        assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
        text = text.replace(old, new)
    return text


def _free_ports(count: int) -> tuple[int, ...]:
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return tuple(int(one.getsockname()[1]) for one in held)
    finally:
        for one in held:
            one.close()
