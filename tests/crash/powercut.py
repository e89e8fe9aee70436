"""What a power cut may leave: a log of calls, and the disks that it allows.

    log = Log(folder)
    with log.recording(): …           the code under test; log.mark(…) in between
    for cut in range(len(log.ops)): log.disk(cut, model, random).write(elsewhere)

A file's bytes are safe after fsync of the file, its name after fsync of its folder. Everything else
may be there or not.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Model = Literal["nothing", "everything", "names", "some"]
MODELS: tuple[Model, ...] = ("nothing", "everything", "names")
_CALLS = ("open", "write", "pwrite", "ftruncate", "posix_fallocate", "fsync", "fdatasync",
          "rename", "unlink", "mkdir", "utime")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Op:
    """One call: on bytes (`file` is a number), on a name, or a mark of the test's."""

    kind: str  # write, resize, time, sync, datasync | add, move, drop, folder, sync-folder | mark
    file: int = -1
    path: str = ""
    to: str = ""
    offset: int = 0
    content: bytes = b""


@dataclass(slots=True)
class File:
    """The bytes and the time of a file, as far as they would survive."""

    content: bytearray = field(default_factory=bytearray)
    mtime_ns: int = 0

    def apply(self, op: Op) -> None:
        match op.kind:
            case "write":
                end = op.offset + len(op.content)
                self.content.extend(bytes(max(0, end - len(self.content))))
                self.content[op.offset : end] = op.content
            case "resize":
                del self.content[op.offset :]
                self.content.extend(bytes(op.offset - len(self.content)))
            case "time":
                self.mtime_ns = op.offset


@dataclass(slots=True)
class Disk:
    """What lies there after the cut."""

    files: dict[str, File]
    folders: set[str]

    def write(self, to: Path) -> None:
        for folder in sorted(self.folders):
            (to / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, file in self.files.items():
            target = to / path
            if target.parent.is_dir():  # else its folder is lost, and it with it
                target.write_bytes(file.content)
                os.utime(target, ns=(file.mtime_ns, file.mtime_ns))


class Log:
    """Every change below a folder, in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ops: list[Op] = []
        self._numbers: dict[int, int] = {}  # inode → file

    def mark(self, what: str) -> None:
        """Something was promised to somebody."""
        self.ops.append(Op("mark", path=what))

    def marks(self, cut: int) -> set[str]:
        return {op.path for op in self.ops[:cut] if op.kind == "mark"}

    # --- recording ---

    @contextmanager
    def recording(self) -> Iterator[None]:
        real = {name: getattr(os, name) for name in _CALLS}
        for name, function in real.items():
            setattr(os, name, self._wrapped(name, function))
        try:
            yield
        finally:
            for name, function in real.items():
                setattr(os, name, function)

    def _wrapped(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        note: Callable[..., None] = getattr(self, f"_{name}")

        def call(*args: object, **options: object) -> object:
            result = real(*args, **options)  # noted when it is done: before, it promises nothing
            note(result, *args, **options)
            return result

        return call

    def _inside(self, path: object) -> str | None:
        if isinstance(path, int):
            path = str(Path(f"/proc/self/fd/{path}").readlink()).removesuffix(" (deleted)")
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        folder = str(self.folder)
        if text == folder:
            return "."
        return text[len(folder) + 1 :] if text.startswith(folder + "/") else None

    def _number(self, fd: int) -> int:
        return self._numbers[os.fstat(fd).st_ino]

    def _open(self, fd: int, path: object, flags: int, *rest: object, **options: object) -> None:
        name = self._inside(path)
        if name is None or not flags & os.O_CREAT:
            return
        inode = os.fstat(fd).st_ino
        number = self._names().get(name)
        if number is None or number != self._numbers.get(inode):
            self._numbers[inode] = len(self.ops)
            self.ops.append(Op("add", self._numbers[inode], name))
        if flags & os.O_TRUNC:
            self.ops.append(Op("resize", self._numbers[inode]))

    def _names(self) -> dict[str, int]:
        names: dict[str, int] = {}
        for op in self.ops:
            _rename(names, op)
        return names

    def _write(self, count: int, fd: int, content: bytes) -> None:
        if self._inside(fd) is not None:
            number = self._number(fd)
            at = len(self._content(number))  # they only append
            self.ops.append(Op("write", number, offset=at, content=bytes(content[:count])))

    def _content(self, number: int) -> bytearray:
        file = File()
        for op in self.ops:
            if op.file == number:  # calls that only name it change nothing
                file.apply(op)
        return file.content

    def _pwrite(self, count: int, fd: int, content: bytes, offset: int) -> None:
        if self._inside(fd) is not None:
            piece = bytes(content[:count])
            self.ops.append(Op("write", self._number(fd), offset=offset, content=piece))

    def _ftruncate(self, _: None, fd: int, size: int) -> None:
        if self._inside(fd) is not None:
            self.ops.append(Op("resize", self._number(fd), offset=size))

    def _posix_fallocate(self, _: None, fd: int, offset: int, length: int) -> None:
        self._ftruncate(None, fd, max(offset + length, os.fstat(fd).st_size))

    def _fsync(self, _: None, fd: int) -> None:
        name = self._inside(fd)
        if name is not None and (self.folder / name).is_dir():
            self.ops.append(Op("sync-folder", path=name))
        elif name is not None:
            self.ops.append(Op("sync", self._number(fd)))

    def _fdatasync(self, _: None, fd: int) -> None:
        if self._inside(fd) is not None:
            self.ops.append(Op("datasync", self._number(fd)))

    def _rename(self, _: None, source: object, target: object) -> None:
        one, other = self._inside(source), self._inside(target)
        if one is not None and other is not None:
            self.ops.append(Op("move", self._names()[one], path=one, to=other))

    def _unlink(self, _: None, path: object) -> None:
        name = self._inside(path)
        if name is not None:
            self.ops.append(Op("drop", path=name))

    def _mkdir(self, _: None, path: object, *rest: object) -> None:
        name = self._inside(path)
        if name is not None:
            self.ops.append(Op("folder", path=name))

    def _utime(self, _: None, path: Path, times: tuple[int, int] | None = None) -> None:
        name = self._inside(path)
        if name is not None and times is not None:
            self.ops.append(Op("time", self._names()[name], offset=int(times[1] * 10**9)))

    # --- what may be left ---

    def disk(self, cut: int, model: Model, pick: random.Random) -> Disk:
        """A disk that the calls before `cut` may have left."""
        done: dict[int, Op] = {}  # calls whose effect is safe
        waiting: list[tuple[int, Op]] = []
        for number, op in enumerate(self.ops[:cut]):
            if op.kind == "mark":
                continue
            if op.kind in ("sync", "datasync", "sync-folder"):
                done |= {n: other for n, other in waiting if _saves(op, other)}
                waiting = [(n, other) for n, other in waiting if not _saves(op, other)]
            else:
                waiting.append((number, op))
        done |= {n: op for n, op in waiting if _lucky(op, model, pick)}
        names: dict[str, int] = {}
        files: dict[int, File] = {}
        folders: set[str] = set()
        for _, op in sorted(done.items()):
            if op.kind == "folder":
                folders.add(op.path)
            elif op.kind in ("add", "move", "drop"):
                _rename(names, op)
            else:
                files.setdefault(op.file, File()).apply(op)
        there = {path: files.get(number, File()) for path, number in names.items()}
        return Disk(there, folders)


def _rename(names: dict[str, int], op: Op) -> None:
    match op.kind:
        case "add":
            names[op.path] = op.file
        case "move":  # it is at home under the new name, whatever became of the old one
            names.pop(op.path, None)
            names[op.to] = op.file
        case "drop":
            names.pop(op.path, None)


def _saves(sync: Op, other: Op) -> bool:
    """Whether a sync makes this call's effect safe."""
    if sync.kind == "sync-folder":
        named = other.kind in ("add", "move", "drop", "folder")
        return named and sync.path in {_folder(other.path), _folder(other.to or other.path)}
    mine = other.kind in ("write", "resize", "time") and other.file == sync.file
    return mine and (sync.kind == "sync" or other.kind != "time")


def _folder(path: str) -> str:
    return path.rpartition("/")[0] or "."


def _lucky(op: Op, model: Model, pick: random.Random) -> bool:
    match model:
        case "nothing":
            return False
        case "everything":
            return True
        case "names":  # they overtake the bytes
            return op.kind in ("add", "move", "drop", "folder")
        case "some":
            return pick.random() < 0.5
