"""start and stop: the server in the background."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM

from proxy.config import Config
from proxy.errors import ConfigError, StoreError
from proxy.tasks import instance, ports
from proxy.tasks.instance import Record
from proxy.tasks.ports import Holder

POLL_S = 0.05
LOG_BYTES = 10 << 20  # a longer log is put aside at the next start
_TAIL_BYTES = 16 << 10
_TAIL_LINES = 25


@dataclass(frozen=True, slots=True)
class Replacing:
    """A server that we started earlier still runs; it is stopped first."""

    pid: int


@dataclass(frozen=True, slots=True)
class Stopping:
    """The server was asked to end."""

    pid: int


@dataclass(frozen=True, slots=True)
class Killed:
    """It did not end in time and was killed. What it held is safe; its downloads resume."""

    pid: int
    waited_s: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """It runs no more."""

    pid: int


@dataclass(frozen=True, slots=True)
class NotRunning:
    """There is nothing to stop."""


@dataclass(frozen=True, slots=True)
class NotOurs:
    """A server works on this data directory, and `start` did not start it."""

    pid: int


@dataclass(frozen=True, slots=True)
class PortTaken:
    """Somebody else listens where we should."""

    listen: str
    holder: Holder


@dataclass(frozen=True, slots=True)
class Spawned:
    """The server's process runs; it is not ready yet."""

    pid: int
    log: Path


@dataclass(frozen=True, slots=True)
class Ready:
    """The server answers."""

    pid: int
    urls: tuple[str, ...]  # the likeliest first
    took_s: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The server does not run. `tail` is the end of what it had to say."""

    problem: str
    tail: tuple[str, ...]


StopEvent = Stopping | Killed | Stopped | NotRunning | NotOurs
StartEvent = Replacing | StopEvent | PortTaken | Spawned | Ready | Failed


async def start(config: Config, *, timeout_s: float = 30.0) -> AsyncGenerator[StartEvent]:
    """Run the server in the background and wait until it is ready.

    A server that we started earlier is replaced; nobody else's process is touched. The last event
    is Ready, or says why there is none. Raises: ConfigError, StoreError.
    """
    listen = config.listen
    if listen.port == 0:
        raise ConfigError(
            config.file or "the environment", None, "listen: start needs a port, not 0"
        )
    _make_data(config)
    earlier = instance.read(config)
    if earlier is not None and earlier.alive():
        yield Replacing(earlier.pid)
        async for event in _end(config, earlier, timeout_s):
            yield event
    said = await asyncio.to_thread(instance.status, config)
    if said is not None and instance.serves(config, said):
        yield NotOurs(int(str(said["pid"])))
        return
    error = await asyncio.to_thread(ports.problem, listen)
    if error is not None and ports.is_taken(error):
        yield PortTaken(str(listen), await asyncio.to_thread(ports.holder, listen.port))
        return
    if error is not None:
        raise ConfigError(
            config.file or "the environment", None, f"listen: {listen}: {error.strerror or error}"
        )
    began = time.monotonic()
    process, log_start = await asyncio.to_thread(_spawn, config)
    record = Record.of(process.pid, str(listen), time.time())
    if record is not None:
        instance.write(config, record)
    yield Spawned(process.pid, instance.log_file(config))
    try:
        problem = await _wait_ready(config, process, began + timeout_s)
    except BaseException:  # the caller gave up waiting: leave nothing half started
        process.terminate()
        raise
    if problem is None:
        urls = await asyncio.to_thread(ports.lan_urls, listen)
        yield Ready(process.pid, tuple(urls), time.monotonic() - began)
        return
    if process.poll() is None and record is not None:
        async for event in _end(config, record, timeout_s=5.0):
            yield event
    instance.forget(config)
    yield Failed(problem, await asyncio.to_thread(_tail, instance.log_file(config), log_start))


async def stop(config: Config, *, timeout_s: float = 30.0) -> AsyncGenerator[StopEvent]:
    """End the server that `start` started, and no other. Raises: StoreError."""
    record = instance.read(config)
    if record is not None and record.alive():
        async for event in _end(config, record, timeout_s):
            yield event
        return
    said = await asyncio.to_thread(instance.status, config)
    if said is not None and instance.serves(config, said):
        yield NotOurs(int(str(said["pid"])))
        return
    instance.forget(config)
    yield NotRunning()


async def _end(config: Config, record: Record, timeout_s: float) -> AsyncGenerator[StopEvent]:
    yield Stopping(record.pid)
    instance.send(record, SIGTERM)
    if not await _gone(record, timeout_s):
        yield Killed(record.pid, timeout_s)
        instance.send(record, SIGKILL)
        if not await _gone(record, 10.0):
            raise StoreError(f"pid {record.pid} cannot be ended, not even by SIGKILL")
    instance.forget(config)
    yield Stopped(record.pid)


async def _gone(record: Record, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while record.alive():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_S)
    return True


async def _wait_ready(
    config: Config, process: subprocess.Popen[bytes], deadline: float
) -> str | None:
    """None once our process says that it is ready, else why it is not."""
    while True:
        if process.poll() is not None:
            return f"the server ended with status {process.returncode}"
        ready = await asyncio.to_thread(instance.get, config.listen.local_url, "/-/ready", 2.0)
        if ready is not None and ready.status == 200:
            said = await asyncio.to_thread(instance.status, config)
            if said is not None and said["pid"] == process.pid:
                return None
        if time.monotonic() > deadline:
            return "the server runs, but is not ready in time"
        await asyncio.sleep(POLL_S)


def _spawn(config: Config) -> tuple[subprocess.Popen[bytes], int]:
    """The process, and where in the log its words begin."""
    log = instance.log_file(config)
    # -P: a folder named "proxy" in the working directory is not us.
    command = [sys.executable, "-P", "-m", "proxy"]
    if config.file is not None:
        command += ["-c", str(config.file)]
    try:
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            log_start = os.fstat(fd).st_size
            # No shell, and nothing in the command that a client can choose.
            process = subprocess.Popen(  # noqa: S603
                [*command, "serve"],
                stdin=subprocess.DEVNULL,
                stdout=fd,
                stderr=fd,
                start_new_session=True,  # closing the terminal does not end it
            )
            return process, log_start
        finally:
            os.close(fd)
    except OSError as e:
        raise StoreError(f"cannot start the server: {e}") from e


def _make_data(config: Config) -> None:
    try:
        config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as e:
        raise StoreError(f"cannot make {config.data}: {e.strerror or e}") from e


def _tail(log: Path, start: int) -> tuple[str, ...]:
    """The last lines that were written after `start`."""
    try:
        with log.open("rb") as text:
            text.seek(max(start, log.stat().st_size - _TAIL_BYTES))
            lines = text.read().decode("utf-8", "replace").splitlines()
    except OSError as e:
        return (f"{log} cannot be read: {e}",)
    return tuple(lines[-_TAIL_LINES:])
