"""A fake Hub in a process of its own, and its remote control."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec

from proxy.hub.wire import Json
from tests.fakes.acme import acme_world
from tests.fakes.control import Addresses, HubControl
from tests.fakes.hub_server import HubServer
from tests.fakes.settings import Settings
from tests.fakes.world import World

_ROOT = Path(__file__).parents[2]
_ERRORS: dict[str, type[Exception]] = {
    "KeyError": KeyError,
    "TimeoutError": TimeoutError,
    "ValueError": ValueError,
}


class RemoteHub(HubControl):
    """A fake Hub that listens for control somewhere."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses = addresses

    def call(self, verb: str, arguments: Json) -> object:
        port = urlsplit(self.addresses.control).netloc
        with contextlib.closing(http.client.HTTPConnection(port, timeout=60)) as connection:
            connection.request("POST", f"/{verb}", msgspec.json.encode(arguments))
            reply = connection.getresponse()
            result: object = msgspec.json.decode(reply.read())
        if reply.status != 200 and isinstance(result, dict):
            raise _ERRORS.get(result["error"], RuntimeError)(result["message"])
        return result


class HubProcess(RemoteHub):
    """Starts such a process and ends it; a context manager."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        with tempfile.NamedTemporaryFile(suffix=".json") as config:
            config.write(msgspec.json.encode(asdict(self._settings)))
            config.flush()
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "tests.fakes.hub_server",
                    "--config", config.name, "--with-parent",
                ],
                cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            assert self._process.stdout is not None
            line = self._process.stdout.readline()  # it prints that, or ends
        if not line:
            self.close()
            raise RuntimeError("the fake Hub did not start")
        self.addresses = msgspec.json.decode(line, type=Addresses)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closing twice is fine."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._process = None


def main(arguments: list[str] | None = None) -> int:
    """Prints the addresses as one line of JSON, and serves until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="tests.fakes.hub_server", description=__doc__)
    parser.add_argument("--config", type=Path, help="a JSON file with fields of Settings")
    parser.add_argument("--world", choices=("acme", "empty"))
    parser.add_argument("--port", type=int, help="of the Hub; the others are chosen")
    parser.add_argument("--bandwidth", type=float, help="bytes a second, of each connection")
    parser.add_argument("--latency", type=float, help="seconds before every answer")
    parser.add_argument("--with-parent", action="store_true", help="end when stdin does")
    chosen = parser.parse_args(arguments)
    settings = Settings()
    if chosen.config:
        settings = msgspec.json.decode(chosen.config.read_bytes(), type=Settings)
    settings.world = chosen.world or settings.world
    settings.hub_port = chosen.port or settings.hub_port
    settings.bandwidth = chosen.bandwidth or settings.bandwidth
    settings.latency_s = chosen.latency or settings.latency_s
    # Before the threads start: they inherit the mask, and the signal waits for sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    if chosen.with_parent:
        # A test run that was killed must not leave its Hubs behind.
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    world = acme_world() if settings.world == "acme" else World()
    with HubServer(world, settings) as hub:
        hub.control_port()
        print(msgspec.json.encode(hub.addresses).decode(), flush=True)
        signal.sigwait((signal.SIGTERM, signal.SIGINT))
    return 0


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)
