"""Devices: a client environment with a fresh cache, and an environment that names the mirror."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e import clients
from tests.fakes.world import Commit

_AGENT = Path(__file__).with_name("agent.py")
_CALL_S = 60.0

Call = tuple[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one call on a device."""

    value: object = None
    error: str = ""  # the exception's class; "" is success
    kinds: tuple[str, ...] = ()  # and those above it
    text: str = ""  # what the exception says
    trace: str = ""
    seconds: float = 0.0
    stderr: str = ""  # all that the device wrote there so far

    @property
    def folder(self) -> Path:
        """The path that a download returned."""
        assert not self.error, self.trace
        return Path(str(self.value))


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command on a device did."""

    status: int
    stdout: str
    stderr: str


class Running:
    """A program on a device that was given calls and works on them."""

    def __init__(self, process: subprocess.Popen[str], count: int, log: Path) -> None:
        self._process = process
        self._count = count
        self._log = log

    def outcomes(self, timeout_s: float = _CALL_S) -> list[Outcome]:
        """Of every call, in order."""
        try:
            stdout, _ = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.end()
            raise
        stderr = self._log.read_text(errors="replace")
        lines = stdout.splitlines()
        assert len(lines) == self._count, f"the client broke down\n{stdout}\n{stderr}"
        return [_outcome(json.loads(line), stderr) for line in lines]

    def outcome(self, timeout_s: float = _CALL_S) -> Outcome:
        (only,) = self.outcomes(timeout_s)
        return only

    def end(self) -> None:
        """Switch the device off. Doing so twice is fine."""
        self._process.kill()
        if self._process.stdout is not None and not self._process.stdout.closed:
            self._process.communicate()


@dataclass(slots=True)
class Device:
    """A machine with one client version and nothing downloaded yet."""

    client: str
    endpoint: str
    home: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    runs: list[Running] = field(default_factory=list)

    @property
    def hf_home(self) -> Path:
        return self.home / "hf"

    def start(self, *calls: Call) -> Running:
        """Begin with these calls of huggingface_hub; one process, one call after the other."""
        log = self.home / f"stderr-{len(self.runs)}"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [clients.program(self.client), _AGENT],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                text=True, cwd=self.home, env=self._environment(),
            )  # fmt: skip
        assert process.stdin is not None
        for name, arguments in calls:
            process.stdin.write(json.dumps({"call": name, "with": arguments}) + "\n")
        process.stdin.close()
        process.stdin = None  # communicate() would flush it
        running = Running(process, len(calls), log)
        self.runs.append(running)
        return running

    def call(self, name: str, /, **arguments: object) -> Outcome:
        """One call of huggingface_hub, to its end."""
        return self.start((name, arguments)).outcome()

    def snapshot(self, repo: str = "acme/tiny", **arguments: object) -> Outcome:
        return self.call("snapshot_download", repo_id=repo, **arguments)

    def file(self, path: str, repo: str = "acme/tiny", **arguments: object) -> Outcome:
        return self.call("hf_hub_download", repo_id=repo, filename=path, **arguments)

    def hf(self, *arguments: str, timeout_s: float = _CALL_S) -> Ended:
        """The command line of the client, by the name that it has in this version."""
        command = clients.program(self.client, "hf")
        if not command.exists():
            command = clients.program(self.client, "huggingface-cli")
        done = subprocess.run(
            [command, *arguments],
            capture_output=True, stdin=subprocess.DEVNULL, text=True, cwd=self.home,
            env=self._environment(), timeout=timeout_s, check=False,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)

    def end(self) -> None:
        for running in self.runs:
            running.end()

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "HF_HOME": str(self.hf_home),
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",  # it asks PyPI
            "NO_COLOR": "1",
            "COLUMNS": "1000",  # sentences are looked for, and not to be broken
            **self.variables,
        }


def until(what: str, condition: Callable[[], object], *, timeout_s: float = 10.0) -> float:
    """Wait until a condition holds; how many seconds that took. Raises: TimeoutError."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout_s:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.02)
    return time.monotonic() - began


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by path; the client's own notes are left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".cache" not in path.relative_to(folder).parts
    }


def truth(commit: Commit) -> dict[str, str]:
    """The same of a commit, as its source has it."""
    return {path: file.digest.hex for path, file in sorted(commit.files.items())}


def _outcome(raw: dict[str, object], stderr: str) -> Outcome:
    kinds = raw.get("kinds", [])
    assert isinstance(kinds, list)
    return Outcome(
        value=raw.get("value"),
        error=str(raw.get("error", "")),
        kinds=tuple(str(kind) for kind in kinds),
        text=str(raw.get("text", "")),
        trace=str(raw.get("trace", "")),
        seconds=float(str(raw["seconds"])),
        stderr=stderr,
    )
