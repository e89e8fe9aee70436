"""Starts servers that are expected to refuse: one fork each, of a process that has imported it all.

`python -m tests.faults.refusals` reads a JSON list of hubpin.yaml files from stdin and prints how
each server ended, in order. What a start costs is then what reading the files costs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from proxy.cli.main import build
from tests.faults.mirror import ROOT

_TOO_LONG_S = 20


@dataclass(frozen=True, slots=True)
class Ended:
    """How a server ended, and what it cost."""

    status: int
    said: str
    seconds: float  # of CPU time: others may be busy on this machine
    memory: int  # bytes, at most, with what any server needs


def serve_each(configs: Sequence[Path]) -> list[Ended]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.refusals"],
        cwd=ROOT, input=msgspec.json.encode([str(config) for config in configs]),
        stdout=subprocess.PIPE, timeout=100, check=True,
    )  # fmt: skip
    return msgspec.json.decode(done.stdout, type=list[Ended])


def _serve(config: str) -> Ended:
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if child == 0:
            signal.alarm(_TOO_LONG_S)  # a server that does not refuse
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.argv = ["hubpin", "-c", config, "serve"]
            build()()
            os._exit(0)
        _, status, usage = os.wait4(child, 0)
        seconds = usage.ru_utime + usage.ru_stime
        said.seek(0)
        return Ended(os.waitstatus_to_exitcode(status), said.read(), seconds, usage.ru_maxrss << 10)


def main() -> None:
    configs = msgspec.json.decode(sys.stdin.buffer.read(), type=list[str])
    print(msgspec.json.encode([_serve(config) for config in configs]).decode())


if __name__ == "__main__":
    main()
