"""Mirror processes that start in no time: a process that has imported everything, and forks.

    python -m tests.crash.zygote        one JSON Order a line on stdin, its pid on stdout

Whatever the order says (limits, faults, clock) is done in the child. Children end with it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from proxy.cli.main import build
from proxy.mirror import part
from tests.crash import syscalls
from tests.crash.syscalls import Plan

_ROOT = Path(__file__).parents[2]
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_CAPABILITIES = 0x20080522  # _LINUX_CAPABILITY_VERSION_3


@dataclass(frozen=True, slots=True)
class Order:
    """A `hubpin` to run."""

    arguments: list[str]
    log: str
    plan: Plan | None = None
    sync_every: int = 0  # bytes between syncs of a part; 0 as usual
    clock_s: float = 0.0  # by how much the wall clock is wrong
    clock_file: str = ""  # the same, as a text that may change at any time
    most_files: int = 0  # descriptors; 0 as usual
    environment: dict[str, str] = field(default_factory=dict)


class Zygote:
    """Starts such a process and ends it; a context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.zygote"], cwd=_ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def spawn(self, order: Order) -> int:
        """The process id."""
        return self._ask(b"spawn " + msgspec.json.encode(order))

    def wait(self, pid: int) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        status = self._ask(b"wait %d" % pid)
        return None if status == -1 else os.waitstatus_to_exitcode(status)

    def _ask(self, line: bytes) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the zygote ended")
        return int(answer)


def main() -> None:
    while line := sys.stdin.buffer.readline():
        verb, _, rest = line.partition(b" ")
        if verb == b"spawn":
            order = msgspec.json.decode(rest, type=Order)
            pid = os.fork()
            if pid == 0:
                _become(order)
            answer = pid
        else:
            found, status = os.waitpid(int(rest), os.WNOHANG)
            answer = status if found else -1
        sys.stdout.buffer.write(b"%d\n" % answer)
        sys.stdout.buffer.flush()


def _become(order: Order) -> None:
    """The mirror, until it ends."""
    status = 70
    try:
        _redirect(order.log)
        _drop_privileges()
        os.environ.update(order.environment)
        if order.most_files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (order.most_files, order.most_files))
        if order.sync_every:
            part.SYNC_EVERY = order.sync_every
        _shift_clock(order)
        if order.plan is not None:
            syscalls.install(order.plan)
        build()(order.arguments, prog_name="hubpin", standalone_mode=True)
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _redirect(log: str) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.closerange(3, 256)


def _drop_privileges() -> None:
    """To root, no file is read-only; without capabilities it is as to everybody else."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _shift_clock(order: Order) -> None:
    if not order.clock_s and not order.clock_file:
        return
    real, real_ns, file = time.time, time.time_ns, order.clock_file

    def shift() -> float:
        return float(Path(file).read_text()) if file else order.clock_s

    time.time = lambda: real() + shift()
    time.time_ns = lambda: real_ns() + int(shift() * 1e9)


if __name__ == "__main__":
    main()
