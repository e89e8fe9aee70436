"""The calls of this process that change files (and some that read them), under a test's control.

    control = install(Plan(folder="/tmp/…/data", kill_at=17))

Every call on a file below `folder` is a step: it can be counted, written down, made to fail, or be
the last thing that this process does.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
from typing_extensions import Buffer

_READS = frozenset({"read", "pread", "preadv", "sendfile"})
_ON_DESCRIPTORS = {
    "write": 0, "pwrite": 0, "fsync": 0, "fdatasync": 0, "posix_fallocate": 0, "ftruncate": 0,
    "fchmod": 0, "pread": 0, "preadv": 0, "sendfile": 1,
}  # fmt: skip
_ON_PATHS = {
    "rename": 1, "replace": 1, "unlink": 0, "remove": 0, "mkdir": 0, "rmdir": 0, "utime": 0,
    "chmod": 0, "truncate": 0,
}  # fmt: skip
CHANGES = sorted((_ON_DESCRIPTORS.keys() | _ON_PATHS.keys() | {"open"}) - _READS)
_CHANGING = os.O_CREAT | os.O_TRUNC
_real_open, _real_readlink, _real_write = os.open, os.readlink, os.write


@dataclass(frozen=True, slots=True)
class Rule:
    """Calls that fail: those of `calls` on files whose path matches `path`."""

    calls: list[str]
    path: str = "*"  # a glob over the path below the folder
    error: str = "EIO"
    nth: int = 1  # the first one that fails
    times: int | None = None  # None: all from then on


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen in a process."""

    folder: str
    kill_at: int = 0  # SIGKILL instead of this step; 0 never
    torn: bool = False  # if that step is a write, half of it is done
    journal: str = ""  # file that gets a line for each step
    rules: str = ""  # file with a JSON list of Rule; may change at any time


@dataclass(slots=True)
class Control:
    """The steps of this process so far."""

    plan: Plan
    listen: Callable[[str, str], None] | None = None  # told each step before it is done
    steps: int = 0
    _door: threading.Lock = field(default_factory=threading.Lock)
    _journal: int = -1
    _rules: list[Rule] = field(default_factory=list)
    _rules_seen: tuple[int, int] = (0, 0)
    _matched: dict[int, int] = field(default_factory=dict)

    def step(self, call: str, path: str, half: Callable[[], object] | None = None) -> None:
        """Raises: OSError, if a rule says so."""
        if not path.startswith(self.plan.folder):
            return
        inside = path[len(self.plan.folder) :].lstrip("/")
        with self._door:
            self._fail(call, inside, path)
            if call in _READS:
                return
            if self.listen is not None:
                self.listen(call, inside)
            self.steps += 1
            if self.plan.journal:
                self._note(f"{self.steps} {call} {inside}\n")
            if self.steps == self.plan.kill_at:
                if half is not None and self.plan.torn:
                    half()
                os.kill(os.getpid(), signal.SIGKILL)

    def _fail(self, call: str, inside: str, path: str) -> None:
        if not self.plan.rules:
            return
        try:
            status = os.stat(self.plan.rules)
        except FileNotFoundError:
            return
        seen = (status.st_ino, status.st_mtime_ns)
        if seen != self._rules_seen:
            fd = _real_open(self.plan.rules, os.O_RDONLY | os.O_CLOEXEC)
            text = os.read(fd, 1 << 20)
            os.close(fd)
            self._rules = msgspec.json.decode(text, type=list[Rule])
            self._rules_seen, self._matched = seen, {}
        for number, rule in enumerate(self._rules):
            if call not in rule.calls or not fnmatchcase(inside, rule.path):
                continue
            count = self._matched[number] = self._matched.get(number, 0) + 1
            if rule.nth <= count and (rule.times is None or count < rule.nth + rule.times):
                code = getattr(errno, rule.error)
                raise OSError(code, os.strerror(code), path)

    def _note(self, line: str) -> None:
        if self._journal < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._journal = _real_open(self.plan.journal, flags, 0o600)
        _real_write(self._journal, line.encode())


def write_rules(file: Path, *rules: Rule) -> None:
    """In force from the next step on."""
    temporary = file.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(rules))
    temporary.replace(file)


def install(plan: Plan) -> Control:
    """From now on, for ever: for processes of their own."""
    control = Control(plan)
    for name, position in _ON_DESCRIPTORS.items():
        setattr(os, name, _on_descriptor(control, name, position))
    for name, position in _ON_PATHS.items():
        setattr(os, name, _on_path(control, name, position))
    os.open = _opening(control)
    opener = _file_opening(control)
    for module in (io, builtins):
        setattr(module, "open", opener)  # noqa: B010  # its type is overloaded
    return control


def path_of(fd: int) -> str:
    try:
        return _real_readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def _on_descriptor(control: Control, name: str, position: int) -> Callable[..., object]:
    real: Callable[..., object] = getattr(os, name)

    def call(*args: object) -> object:
        fd = args[position]
        assert isinstance(fd, int)
        path = path_of(fd)
        if path.startswith(control.plan.folder):
            control.step(name, path, _half(real, name, args))
        return real(*args)

    return call


def _half(
    real: Callable[..., object], name: str, args: tuple[object, ...]
) -> Callable[[], object] | None:
    if name not in ("write", "pwrite"):
        return None
    content = args[1]
    assert isinstance(content, bytes | bytearray | memoryview)
    return lambda: real(args[0], content[: len(content) // 2], *args[2:])


def _on_path(control: Control, name: str, position: int) -> Callable[..., object]:
    real: Callable[..., object] = getattr(os, name)

    def call(*args: object, **options: object) -> object:
        control.step(name, _absolute(args[position]))
        return real(*args, **options)

    return call


def _absolute(path: object) -> str:
    if isinstance(path, int):
        return path_of(path)
    assert isinstance(path, str | os.PathLike)
    return os.path.abspath(os.fspath(path))  # noqa: PTH100  # resolve() would follow links


def _opening(control: Control) -> Callable[..., int]:
    def call(path: str, flags: int, mode: int = 0o777, **options: int) -> int:
        if flags & _CHANGING:
            control.step("open", _absolute(path))
        else:
            control._fail("open-read", _below(control, path), os.fspath(path))
        return _real_open(path, flags, mode, **options)

    return call


def _below(control: Control, path: object) -> str:
    absolute = _absolute(path)
    return absolute[len(control.plan.folder) :].lstrip("/") if absolute else ""


def _file_opening(control: Control) -> Callable[..., object]:
    real = io.open

    class File(io.FileIO):
        """A file whose reads and writes are steps."""

        def write(self, content: Buffer, /) -> int:
            control.step("write", path_of(self.fileno()))
            return super().write(content)

        def readinto(self, buffer: Buffer, /) -> int:
            control.step("read", path_of(self.fileno()))
            return super().readinto(buffer) or 0

        def read(self, size: int | None = -1, /) -> bytes:
            control.step("read", path_of(self.fileno()))
            return super().read(-1 if size is None else size) or b""

        def readall(self) -> bytes:
            control.step("read", path_of(self.fileno()))
            return super().readall() or b""

    def call(
        file: object, mode: str = "r", buffering: int = -1, *args: object, **options: object
    ) -> object:
        path = _absolute(file)
        if not path.startswith(control.plan.folder):
            return real(file, mode, buffering, *args, **options)  # type: ignore[call-overload]  # handed on
        if set(mode) & set("wax+") and not isinstance(file, int):
            control.step("open", path)
        if "b" not in mode:
            return real(file, mode, buffering, *args, **options)  # type: ignore[call-overload]  # handed on
        raw = File(file, mode.replace("b", ""))  # type: ignore[arg-type]  # a path or a descriptor
        if buffering == 0:
            return raw
        if "+" in mode:
            return io.BufferedRandom(raw)
        if mode.startswith("r"):
            return io.BufferedReader(raw)
        return io.BufferedWriter(raw)

    return call
