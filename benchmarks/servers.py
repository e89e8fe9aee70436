"""Servers as processes: hubpin, nginx in three roles, olah, and plain aiohttp apps."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_START_S = 60.0
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_OLAH = _ROOT / ".clients" / "olah-0.5.4"

_NGINX = """
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  {http}
  access_log {access};
  default_type application/octet-stream;
  sendfile on; tcp_nopush on; tcp_nodelay on;
  keepalive_requests 1000000000; keepalive_timeout 300s;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  open_file_cache off;
  server {{
    listen 127.0.0.1:{port} backlog=4096 {ssl};
    {server}
  }}
}}
"""


@dataclass(slots=True)
class Server:
    """A server process that listens on `port`."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        """Seconds of processor time, with its children."""
        return sum(_cpu_s(pid, ended=pid == self.process.pid) for pid in self._family())

    def resident(self) -> int:
        """Bytes of memory of its own, with its children; no mapped files, no shared memory."""
        return sum(_anonymous(pid) for pid in self._family())

    def stop(self) -> None:
        """Ends it and whatever it started. Stopping twice is fine."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def _family(self) -> list[int]:
        found, look = [], [self.process.pid]
        while look:
            pid = look.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                with suppress(OSError):
                    look += [int(child) for child in task.read_text().split()]
        return found


@dataclass(slots=True)
class Front(Server):
    """A server that works with another one behind it, whose processor time counts as its own."""

    behind: Server

    def cpu_s(self) -> float:
        return Server.cpu_s(self) + self.behind.cpu_s()


def _cpu_s(pid: int, *, ended: bool) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    # proc(5): utime and stime, then those of children that ended.
    return sum(int(fields[k]) for k in (11, 12, *((13, 14) if ended else ()))) / _TICK


def _anonymous(pid: int) -> int:
    with suppress(OSError):
        resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
        return (int(resident) - int(shared)) * _PAGE
    return 0


def free_port() -> int:
    """Below the ports that the kernel gives to clients: whoever tries to connect to one of those
    while nobody listens may be connected to itself."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def start(
    name: str, port: int, command: Sequence[object], folder: Path,
    *, env: Mapping[str, str] | None = None, cgroup: Path | None = None, wait: bool = True,
) -> Server:  # fmt: skip
    """A process that listens within a minute. Raises: RuntimeError, with its log."""

    def enter() -> None:
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text("0")

    kept = {key: value for key, value in os.environ.items() if not key.startswith("HUBPIN_")}
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [str(one) for one in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            cwd=_ROOT, env={**kept, **(env or {})}, start_new_session=True,
            preexec_fn=enter if cgroup else None,  # noqa: PLW1509  # nothing runs in threads here
        )  # fmt: skip
    server = Server(name, port, process)
    if wait:
        try:
            _await(server)
        except RuntimeError as e:
            server.stop()
            text = (folder / f"{name}.log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{e}\n{text}") from None
    return server


def _await(server: Server) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and server.process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"{server.name} does not start")


# --- nginx ---------------------------------------------------------------------------------------


def nginx_program() -> str:
    """Raises: RuntimeError, if nginx is not there and cannot be installed."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found:
        return found
    with suppress(OSError):
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "nginx-light"],
            stdout=subprocess.DEVNULL, check=False, timeout=300,
        )  # fmt: skip
    found = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if found is None:
        raise RuntimeError("nginx is not here: apt-get install nginx-light")
    return found


def nginx(
    name: str, folder: Path, server: str, *, http: str = "", access: str = "off", ssl: str = "",
    cgroup: Path | None = None,
) -> Server:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = folder / "nginx.conf"
    user = "user root;" if os.getuid() == 0 else ""
    config.write_text(
        _NGINX.format(
            user=user, folder=folder, access=access, http=http, port=port, server=server, ssl=ssl
        )
    )
    command = [nginx_program(), "-p", folder, "-c", config, "-e", folder / "error.log"]
    return start(name, port, command, folder, cgroup=cgroup)


def nginx_files(name: str, folder: Path, root: Path, *, cgroup: Path | None = None) -> Server:
    """Static files with sendfile, and nothing else: the best that can be done."""
    return nginx(name, folder, f"location / {{ root {root}; }}", cgroup=cgroup)


def nginx_hub(name: str, folder: Path, root: Path, commit: str, *, tls: str = "") -> Server:
    """The upstream stand-in: static files with the Hub's header for the commit."""
    server = f"""
    root {root};
    add_header X-Repo-Commit {commit};
    location ~ /resolve/main/ {{ rewrite ^(.*)/resolve/main/(.*)$ $1/resolve/{commit}/$2 last; }}
    location /api/ {{ default_type application/json; error_page 405 =200 $uri; }}
    {tls}
    """
    http = "log_format short '$request_method $uri $status $http_range';"
    access = f"{folder}/access.log short"
    return nginx(name, folder, server, http=http, access=access, ssl="ssl" if tls else "")


def nginx_cache(name: str, folder: Path, upstream: str) -> Server:
    """proxy_cache with a lock, in front of the upstream."""
    server = """
    location / {
      proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_cache c; proxy_cache_valid 200 1d; proxy_cache_lock on; proxy_cache_lock_timeout 300s;
      proxy_cache_lock_age 300s; proxy_buffers 16 64k; proxy_buffer_size 64k;
    }
    """
    http = (
        f"proxy_cache_path {folder}/cache keys_zone=c:10m max_size=100g use_temp_path=off;"
        f"upstream up {{ server {upstream.removeprefix('http://')}; keepalive 16; }}"
    )
    return nginx(name, folder, server, http=http)


def nginx_front(name: str, folder: Path, mirror: Server, data: Path | None) -> Front:
    """deploy/nginx.conf, without TLS and logs; with `data`, files are handed over to it."""
    sample = (_ROOT / "deploy" / "nginx.conf").read_text()
    if data is None:
        sample = sample.replace("X-Hubpin-Accel /-/accel/;", 'X-Hubpin-Accel "";')
    left_out = ("#", "listen ", "server_name ", "ssl_", "access_log ")
    kept = [line for line in sample.splitlines() if not line.lstrip().startswith(left_out)]
    http, _, server = "\n".join(kept).partition("\nserver {\n")
    made = nginx(
        name, folder, server.rstrip().removesuffix("}").replace("/var/lib/hubpin/data", str(data)),
        http=http.replace("127.0.0.1:8090", f"127.0.0.1:{mirror.port}"),
    )  # fmt: skip
    return Front(made.name, made.port, made.process, mirror)


# --- hubpin --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mirror:
    """How a hubpin is to be started; allowlist and lock lie in `folder`."""

    folder: Path
    upstream: str
    data: Path
    name: str = "hubpin"
    fetcher: bool = True
    connections: int = 4
    accel: str = "off"

    def start(self, *, cgroup: Path | None = None, env: Mapping[str, str] | None = None) -> Server:
        port = free_port()
        self.data.mkdir(parents=True, exist_ok=True)
        config = self.folder / f"{self.name}.yaml"
        config.write_text(
            f"listen: 127.0.0.1:{port}\ndata: {self.data}\n"
            f"allowlist: {self.folder / 'allowlist.yaml'}\n"
            f"keep_free: 1MiB\nauto_lock: off\naccel: {self.accel}\n"
            f"fetcher: {str(self.fetcher).lower()}\n"
            f"upstreams:\n  - url: {self.upstream}\n    connections: {self.connections}\n"
            "    redirect_hosts: [127.0.0.1]\n"
        )
        command = [sys.executable, "-m", "proxy", "-c", config, "serve"]
        return start(self.name, port, command, self.folder, cgroup=cgroup, env=env)

    def wipe(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)


# --- others --------------------------------------------------------------------------------------


def aiohttp_app(
    name: str, folder: Path, kind: str, root: Path, *, cgroup: Path | None = None
) -> Server:
    """`kind` as in `apps.py`."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.apps", kind, str(port), root]
    return start(name, port, command, folder, cgroup=cgroup)


def slow_hub(folder: Path, root: Path, *, rate: float, delay_s: float) -> Server:
    """An upstream with so many bytes a second for each connection, that far away."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.slowhub", str(port), root, str(rate), str(delay_s)]
    return start("slowhub", port, command, folder)


def olah(folder: Path, upstream: str) -> Server:
    """olah 0.5.4 from PyPI. Raises: RuntimeError, if it cannot be installed or does not start."""
    if not (_OLAH / "bin" / "olah-cli").exists():
        for step in (
            [sys.executable, "-m", "venv", str(_OLAH)],
            [str(_OLAH / "bin" / "pip"), "install", "-qq", "olah==0.5.4"],
        ):
            done = subprocess.run(step, capture_output=True, timeout=300, check=False)
            if done.returncode:
                raise RuntimeError("olah 0.5.4 cannot be installed")
    port = free_port()
    netloc = upstream.removeprefix("http://")
    command: list[object] = [
        _OLAH / "bin" / "olah-cli", "--host", "127.0.0.1", "--port", str(port),
        "--hf-scheme", "http", "--hf-netloc", netloc, "--hf-lfs-netloc", netloc,
        "--mirror-scheme", "http", "--mirror-netloc", f"127.0.0.1:{port}",
        "--mirror-lfs-netloc", f"127.0.0.1:{port}", "--repos-path", folder / "olah-repos",
        "--log-path", folder / "olah-logs",
    ]  # fmt: skip
    return start("olah", port, command, folder)


def upstream_gets(folder: Path, path: str) -> int:
    """How often the upstream stand-in in `folder` was asked for this path with GET."""
    log = (folder / "access.log").read_text().splitlines()
    return sum(1 for line in log if line.startswith(f"GET {path} "))


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=120) as answer:
        body: bytes = answer.read()
        return body
