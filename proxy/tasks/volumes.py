"""Where a bundle's bytes lie: in a file, in numbered parts of it, or in a pipe. All of it blocks.

NAME          one file
NAME.000 …    parts of the same size (the last one may be smaller), one after the other the file
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from proxy.errors import ConfigError, StoreError
from proxy.mirror.part import Room

_PIECE = 1 << 20
_PART = re.compile(r"(.+)\.(\d{3})")
_MOST_PARTS = 1000


class Sink(Protocol):
    """Takes a bundle's bytes in order."""

    @property
    def name(self) -> str: ...
    def prepare(self, size: int) -> None:
        """So many bytes will come. Raises: ConfigError, StoreError, before anything is written."""
        ...

    def write(self, piece: bytes) -> None:
        """Raises: StoreError."""
        ...

    def finish(self) -> tuple[str, ...]:
        """All bytes came: keep them, durably. The names of what was written."""
        ...

    def discard(self) -> None:
        """It came to nothing: leave nothing behind. After `finish` it does nothing."""
        ...


class PipeSink:
    """Standard output, or any other open file."""

    def __init__(self, file: BinaryIO, name: str = "standard output") -> None:
        self._file = file
        self.name = name

    def prepare(self, size: int) -> None:
        if self._file.isatty():
            raise ConfigError("-o -", None, "a terminal cannot show a bundle; pipe it somewhere")

    def write(self, piece: bytes) -> None:
        _write(self._file, piece, self.name)

    def finish(self) -> tuple[str, ...]:
        try:
            self._file.flush()
        except OSError as e:
            raise StoreError(f"cannot write {self.name}: {e.strerror or e}") from e
        return (self.name,)

    def discard(self) -> None:
        """What was written is gone; the reader notices that the end is missing."""


class FileSink:
    """A file, or numbered parts of it.

    A file gets its name when it is complete and durable. So a part that is there may be carried
    away while the next one is written: the disk need not hold them all.
    """

    def __init__(self, file: Path, split: int = 0) -> None:
        """`split` is the size of a part in bytes; 0 writes one file."""
        self.name = str(file)
        self._target = file
        self._split = split
        self._file: BinaryIO | None = None
        self._left = 0  # bytes that still fit into the open file
        self._done: list[Path] = []
        self._finished = False

    def prepare(self, size: int) -> None:
        there = [self._target, *existing_parts(self._target)] if self._split else [self._target]
        for file in there:
            if os.path.lexists(file):
                raise ConfigError(file, None, "is there already; choose another name or delete it")
        if self._split and size > self._split * _MOST_PARTS:
            raise ConfigError(
                "--split", None, f"{size:,} bytes make more than {_MOST_PARTS} parts of this size"
            )
        folder = self._target.parent
        if not folder.is_dir():
            raise ConfigError(self._target, None, f"there is no folder {folder}")
        if not self._split:
            Room(0).check(folder, size, self.name)

    def write(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            if self._file is None or not self._left:
                self._close()
                self._file = self._open()
            count = len(view) if not self._split else min(len(view), self._left)
            _write(self._file, view[:count], self.name)
            self._left -= count
            view = view[count:]

    def finish(self) -> tuple[str, ...]:
        self._close()
        self._finished = True
        return tuple(str(file) for file in self._done)

    def discard(self) -> None:
        if self._finished:
            return
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
            for file in (*self._done, self._temporary()):
                file.unlink(missing_ok=True)

    def _name(self) -> Path:
        return _part(self._target, len(self._done)) if self._split else self._target

    def _temporary(self) -> Path:
        name = self._name()
        return name.with_name(f"{name.name}.tmp")

    def _open(self) -> BinaryIO:
        self._left = self._split or 1 << 62
        try:
            return self._temporary().open("wb", buffering=0)
        except OSError as e:
            raise StoreError(f"cannot write {self._temporary()}: {e.strerror or e}") from e

    def _close(self) -> None:
        """The open file is complete: make it durable, then give it its name."""
        if self._file is None:
            return
        name = self._name()
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary().rename(name)
            folder = os.open(name.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as e:
            raise StoreError(f"cannot write {name}: {e.strerror or e}") from e
        self._file = None
        self._done.append(name)


class Source:
    """A bundle's bytes in order, from its files or from one that is open already."""

    def __init__(self, files: Sequence[Path] = (), *, pipe: BinaryIO | None = None) -> None:
        self.name = str(files[0]) if files else "standard input"
        self.hint = _hint(files)  # what may be missing, if the end comes too early
        self._waiting = list(files)
        self._owned = pipe is None
        self._file = pipe

    def read(self, size: int) -> bytes:
        """So many bytes; fewer only at the end. Raises: StoreError."""
        pieces: list[bytes] = []
        left = size
        try:
            while left and self._at():
                assert self._file is not None
                piece = self._file.read(left)
                if piece:
                    pieces.append(piece)
                    left -= len(piece)
                else:
                    self._next()
        except OSError as e:
            raise StoreError(f"cannot read {self.name}: {e.strerror or e}") from e
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def skip(self, size: int) -> None:
        """Leave out so many bytes; past the end, the next `read` finds nothing."""
        left = size
        try:
            while left and self._at():
                assert self._file is not None
                status = os.fstat(self._file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    piece = self._file.read(min(left, _PIECE))
                    left -= len(piece)
                    if not piece:
                        self._next()
                    continue
                at = self._file.tell()
                step = max(0, min(left, status.st_size - at))
                self._file.seek(at + step)
                left -= step
                if left:
                    self._next()
        except OSError as e:
            raise StoreError(f"cannot read {self.name}: {e.strerror or e}") from e

    def close(self) -> None:
        if self._file is not None and self._owned:
            self._file.close()
        self._file = None
        self._waiting = []

    def _at(self) -> bool:
        """Whether a file is open, after opening one if there is one."""
        if self._file is None and self._waiting:
            self.name = str(self._waiting[0])
            self._file = self._waiting.pop(0).open("rb")
        return self._file is not None

    def _next(self) -> None:
        if self._owned and self._file is not None:
            self._file.close()
        self._file = None


def find(files: Sequence[Path]) -> list[Path]:
    """The files that make up one bundle: itself, or its parts, which need not all be named.

    Raises: ConfigError.
    """
    if len(files) == 1:
        only = files[0]
        match = _PART.fullmatch(only.name)
        if only.exists() and (match is None or match[2] != "000"):
            return [only]
        base = only.with_name(match[1]) if match and match[2] == "000" else only
        files = existing_parts(base)
        if not files:
            raise ConfigError(only, None, "there is no such file")
    ordered = sorted(files)
    base = ordered[0].with_name(ordered[0].name.rpartition(".")[0])
    for number, file in enumerate(ordered):
        if _PART.fullmatch(file.name) is None:
            raise ConfigError(file, None, "is no part of a bundle; name one bundle at a time")
        wanted = _part(base, number).name
        if file.name != wanted:
            raise ConfigError(file, None, f"{wanted} is missing: one bundle, all parts, in order")
        if not file.exists():
            raise ConfigError(file, None, "there is no such file")
    return ordered


def existing_parts(base: Path) -> list[Path]:
    if not base.parent.is_dir():
        return []
    return sorted(
        file
        for file in base.parent.iterdir()
        if (match := _PART.fullmatch(file.name)) and match[1] == base.name
    )


def _part(base: Path, number: int) -> Path:
    return base.with_name(f"{base.name}.{number:03d}")


def _hint(files: Sequence[Path]) -> str:
    last = files[-1] if files else None
    match = _PART.fullmatch(last.name) if last else None
    if last is None or match is None:
        return ""
    return f"; is {match[1]}.{int(match[2]) + 1:03d} missing?"


def _write(file: BinaryIO, piece: bytes | memoryview, name: str) -> None:
    view = memoryview(piece)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as e:
        raise StoreError(f"cannot write {name}: {e.strerror or e}") from e
